//! Executions: their status, streams and signals, in routes that both dialects share.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use boxlite::{Error, ExecutionState, WindowSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{JsonBody, PathParams, QueryParams};
use crate::executions::{
    self, AttachTerms, ExecutionOutcome, ExecutionTerms, FoundExecution, ServedExecution,
};
use crate::failure::HttpFailure;
use crate::websocket::WebSocketRequest;

/// Returns the routes below `/v1/boxes/{id}/executions`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/boxes/{id}/executions/{execution}", get(status).delete(kill))
        .route("/v1/boxes/{id}/executions/{execution}/attach", get(attach))
        .route("/v1/boxes/{id}/executions/{execution}/signal", post(signal))
        .route("/v1/boxes/{id}/executions/{execution}/resize", post(resize))
}

/// An execution as the public API shows it.
#[derive(Debug, Serialize)]
struct PublicExecution {
    execution_id: String,
    status: &'static str,
    exit_code: Option<i32>,
    started_at: Timestamp,
    duration_ms: Option<u64>,
    error_message: Option<String>,
    attached: bool,
}

impl PublicExecution {
    fn of(served: &ServedExecution) -> Self {
        let outcome = served.outcome();
        let (exit_code, error_message) = match &outcome {
            None => (None, None),
            Some((ExecutionOutcome::Exited(status), _)) => (Some(status.code), status.reason.clone()),
            Some((ExecutionOutcome::Broken(error), _)) => (None, Some(error.message.clone())),
        };
        let status = match &outcome {
            None => "running",
            Some(_) if served.was_timed_out() => "timed_out",
            Some((ExecutionOutcome::Exited(_), _)) if !served.was_killed() => "completed",
            Some(_) => "killed",
        };
        Self {
            execution_id: served.id.clone(),
            status,
            exit_code,
            started_at: served.began_at,
            duration_ms: outcome.map(|(_, at)| at.duration_since(served.began).as_millis() as u64),
            error_message,
            attached: served.unattended_since().is_none(),
        }
    }

    /// Shows an execution that its box holds.
    ///
    /// One whose client broke off counts as running until that has had time to fetch the rest: clients that see its end look
    /// no further.
    fn of_held(state: ExecutionState) -> Self {
        let end = state.end.filter(|_| !state.interrupted);
        let status = match &end {
            None => "running",
            Some(_) if state.timed_out => "timed_out",
            Some(_) if state.killed => "killed",
            Some(_) => "completed",
        };
        let began =
            i64::try_from(state.began_unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let (exit_code, error_message) = end.map_or((None, None), |end| (Some(end.code), end.reason));
        Self {
            execution_id: state.id,
            status,
            exit_code,
            started_at: began.unwrap_or(Timestamp::UNIX_EPOCH),
            duration_ms: exit_code.and(state.duration_ms),
            error_message,
            attached: state.attached,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalRequest {
    signal: i32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResizeRequest {
    cols: u16,
    rows: u16,
}

/// The query of an attachment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AttachParams {
    /// `0` or `false` leaves standard input unconnected.
    stdin: Option<String>,
    /// As in [`boxlite::wire::AttachQuery::received`].
    received: Option<u64>,
}

impl AttachParams {
    fn terms(&self) -> Result<AttachTerms, HttpFailure> {
        let with_stdin = match self.stdin.as_deref() {
            None | Some("1" | "true") => true,
            Some("0" | "false") => false,
            Some(other) => return Err(Error::invalid(format!("stdin is 0 or 1, not {other:?}")).into()),
        };
        Ok(AttachTerms { with_stdin, received: self.received })
    }
}

type ExecutionIds = PathParams<(String, String)>;
type Upgrade = Result<WebSocketRequest, HttpFailure>;

async fn status(
    State(app): State<Arc<App>>,
    PathParams((id, execution_id)): ExecutionIds,
) -> Result<Response, HttpFailure> {
    let shown = match app.executions.find_in(&app.runtime, &id, &execution_id).await? {
        FoundExecution::Held(state) => PublicExecution::of_held(state),
        FoundExecution::Served(served) => PublicExecution::of(&served),
    };
    Ok(axum::Json(shown).into_response())
}

async fn kill(
    State(app): State<Arc<App>>,
    PathParams((id, execution_id)): ExecutionIds,
) -> Result<StatusCode, HttpFailure> {
    match app.executions.find_in(&app.runtime, &id, &execution_id).await? {
        FoundExecution::Held(state) => {
            app.runtime.end_execution(&id, &state.id).await.map_err(HttpFailure::of_running)?;
        }
        FoundExecution::Served(served) => {
            if served.outcome().is_none() {
                served.kill().await?;
            }
            served.evict();
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn signal(
    State(app): State<Arc<App>>,
    PathParams((id, execution_id)): ExecutionIds,
    JsonBody(request): JsonBody<SignalRequest>,
) -> Result<StatusCode, HttpFailure> {
    let found = app.executions.find_in(&app.runtime, &id, &execution_id).await?;
    let signal = boxlite::parse_signal(&request.signal.to_string())?;
    still_runs(&found)?;
    match found {
        FoundExecution::Held(state) => app.runtime.signal_execution(&id, &state.id, signal).await?,
        FoundExecution::Served(served) => served.signal(signal).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn resize(
    State(app): State<Arc<App>>,
    PathParams((id, execution_id)): ExecutionIds,
    JsonBody(request): JsonBody<ResizeRequest>,
) -> Result<StatusCode, HttpFailure> {
    let found = app.executions.find_in(&app.runtime, &id, &execution_id).await?;
    if request.cols == 0 || request.rows == 0 {
        return Err(Error::invalid("a terminal has at least one column and one line").into());
    }
    still_runs(&found)?;
    let size = WindowSize { rows: request.rows, columns: request.cols };
    match found {
        FoundExecution::Held(ExecutionState { id: execution, tty: false, .. }) => {
            return Err(Error::conflict(format!("execution {execution} has no terminal to resize")).into());
        }
        FoundExecution::Held(state) => app.runtime.resize_execution(&id, &state.id, size).await?,
        FoundExecution::Served(served) => served.resize(size).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

fn still_runs(found: &FoundExecution) -> Result<(), HttpFailure> {
    let (id, ended) = match found {
        FoundExecution::Held(state) => (&state.id, state.end.is_some()),
        FoundExecution::Served(served) => (&served.id, served.outcome().is_some()),
    };
    if ended { Err(Error::conflict(format!("execution {id} has ended")).into()) } else { Ok(()) }
}

async fn attach(
    State(app): State<Arc<App>>,
    PathParams((id, execution_id)): ExecutionIds,
    QueryParams(query): QueryParams<AttachParams>,
    upgrade: Upgrade,
) -> Result<Response, HttpFailure> {
    let (terms, upgrade) = (query.terms()?, upgrade?);
    let served = app.executions.attach_in(&app.runtime, &id, &execution_id, terms).await?;
    connect(&app, served, terms, upgrade).await
}

/// Attaches to a box's main process through an execution of its own, as the public API does.
pub(super) async fn attach_main(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<AttachParams>,
    upgrade: Upgrade,
) -> Result<Response, HttpFailure> {
    let terms = query.terms()?;
    let upgrade = upgrade?;
    let of = app.runtime.inspect(&id).await?;
    let permit = app.executions.take_permit()?;
    let execution = app.runtime.attach(&of.id).await.map_err(HttpFailure::of_running)?;
    let terms_of_main = ExecutionTerms::of_main_process(&of);
    let (served, _) = app.executions.begin(permit, &of, execution, terms_of_main).await?;
    let id = served.id.clone();
    let mut response = connect(&app, served, terms, upgrade).await?;
    // From here on, clients name the execution by this header.
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("x-boxlite-execution-id", id);
    }
    Ok(response)
}

async fn connect(
    app: &Arc<App>,
    served: Arc<ServedExecution>,
    terms: AttachTerms,
    upgrade: WebSocketRequest,
) -> Result<Response, HttpFailure> {
    let Some(attached) = served.attach(terms.received.is_some()).await else {
        let message = format!("another client is attached to execution {}", served.id);
        return Err(Error::conflict(message).into());
    };
    if !served.resume(terms.received) {
        let received = terms.received.unwrap_or_default();
        let message = format!("the output of execution {} after {received} bytes is not here", served.id);
        return Err(Error::conflict(message).into());
    }
    // Any server has what a box holds; what is held here ends with this server.
    let drain = &app.drain;
    let closing = if served.is_held() { &drain.leaving } else { &drain.closing };
    let (sessions, closing, served) = (drain.sessions.clone(), closing.clone(), Arc::clone(&app.executions));
    Ok(upgrade.accept(move |socket| {
        sessions.track_future(async move {
            let execution = Arc::clone(&attached.served);
            executions::serve_client(socket, attached, terms, closing).await;
            served.leave_to_box(&execution);
        })
    }))
}

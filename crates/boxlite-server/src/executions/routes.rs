//! The routes of an execution, which both dialects share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use boxlite::{Error, WindowSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::{Abandoned, Command, Outcome};
use super::session::{self, MAX_MESSAGE, Terms};
use crate::App;
use crate::body::{Json, Path, Query};
use crate::failure::Failure;

/// The routes below `/v1/boxes/{id}`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/boxes/{id}/executions/{execution}", get(status).delete(kill))
        .route("/v1/boxes/{id}/executions/{execution}/attach", get(attach))
        .route("/v1/boxes/{id}/executions/{execution}/signal", post(signal))
        .route("/v1/boxes/{id}/executions/{execution}/resize", post(resize))
}

/// An execution as the public API shows it.
#[derive(Debug, Serialize)]
struct ExecutionInfo {
    execution_id: String,
    status: &'static str,
    exit_code: Option<i32>,
    started_at: Timestamp,
    duration_ms: Option<u64>,
    error_message: Option<String>,
    attached: bool,
}

impl ExecutionInfo {
    fn of(command: &Command) -> Self {
        let outcome = command.outcome();
        let (exit_code, error_message) = match &outcome {
            None => (None, None),
            Some((Outcome::Ended(status), _)) => (Some(status.code), status.reason.clone()),
            Some((Outcome::Broken(error), _)) => (None, Some(error.message.clone())),
        };
        let status = match &outcome {
            None => "running",
            Some(_) if command.was_timed_out() => "timed_out",
            Some((Outcome::Ended(_), _)) if !command.was_killed() => "completed",
            Some(_) => "killed",
        };
        Self {
            execution_id: command.id.clone(),
            status,
            exit_code,
            started_at: command.began_at,
            duration_ms: outcome.map(|(_, at)| at.duration_since(command.began).as_millis() as u64),
            error_message,
            attached: command.unattended_since().is_none(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct SignalRequest {
    signal: i32,
}

#[derive(Debug, Deserialize)]
struct ResizeRequest {
    cols: u16,
    rows: u16,
}

/// The query of an attachment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AttachQuery {
    /// `0` or `false`: standard input is not connected.
    stdin: Option<String>,
    /// As in [`boxlite::wire::AttachQuery::received`].
    received: Option<u64>,
}

impl AttachQuery {
    fn terms(&self) -> Result<Terms, Failure> {
        let with_stdin = match self.stdin.as_deref() {
            None | Some("1" | "true") => true,
            Some("0" | "false") => false,
            Some(other) => return Err(Error::invalid(format!("stdin is 0 or 1, not {other:?}")).into()),
        };
        Ok(Terms { with_stdin, received: self.received })
    }
}

type Ids = Path<(String, String)>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn status(State(app): State<Arc<App>>, Path((id, execution)): Ids) -> Result<Response, Failure> {
    let command = app.executions.find(&id, &execution)?;
    Ok(axum::Json(ExecutionInfo::of(&command)).into_response())
}

async fn kill(State(app): State<Arc<App>>, Path((id, execution)): Ids) -> Result<StatusCode, Failure> {
    let command = app.executions.find(&id, &execution)?;
    if command.outcome().is_none() {
        command.kill().await?;
    }
    command.evict();
    Ok(StatusCode::NO_CONTENT)
}

async fn signal(
    State(app): State<Arc<App>>,
    Path((id, execution)): Ids,
    Json(request): Json<SignalRequest>,
) -> Result<StatusCode, Failure> {
    let command = app.executions.find(&id, &execution)?;
    let signal = boxlite::parse_signal(&request.signal.to_string())?;
    still_runs(&command)?;
    command.signal(signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resize(
    State(app): State<Arc<App>>,
    Path((id, execution)): Ids,
    Json(request): Json<ResizeRequest>,
) -> Result<StatusCode, Failure> {
    let command = app.executions.find(&id, &execution)?;
    if request.cols == 0 || request.rows == 0 {
        return Err(Error::invalid("a terminal has at least one column and one line").into());
    }
    still_runs(&command)?;
    command.resize(WindowSize { rows: request.rows, columns: request.cols }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn still_runs(command: &Command) -> Result<(), Failure> {
    match command.outcome() {
        None => Ok(()),
        Some(_) => Err(Error::conflict(format!("execution {} has ended", command.id)).into()),
    }
}

async fn attach(
    State(app): State<Arc<App>>,
    Path((id, execution)): Ids,
    Query(query): Query<AttachQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let command = app.executions.find_for_client(&id, &execution)?;
    connect(&app, command, query.terms()?, upgrade).await
}

/// The public API's attachment to a box's main process: an execution that nobody else sees.
pub(crate) async fn attach_main(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let terms = query.terms()?;
    let upgrade = Ok(upgrade.map_err(|rejection| no_upgrade(&rejection))?);
    let of = app.runtime.inspect(&id).await?;
    let room = app.executions.take_room()?;
    let execution = app.runtime.attach(&of.id).await.map_err(Failure::of_running)?;
    let (command, _) = app.executions.begin(room, &of, execution, Abandoned::LetGo, None).await?;
    let id = command.id.clone();
    let mut response = connect(&app, command, terms, upgrade).await?;
    // Clients name the execution by this from then on.
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("x-boxlite-execution-id", id);
    }
    Ok(response)
}

fn no_upgrade(rejection: &WebSocketUpgradeRejection) -> Failure {
    Failure::malformed(
        StatusCode::BAD_REQUEST,
        format!("this route is a WebSocket: {}", rejection.body_text()),
    )
}

async fn connect(
    app: &Arc<App>,
    command: Arc<Command>,
    terms: Terms,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let Some(attached) = command.attach(terms.received.is_some()).await else {
        let message = format!("somebody else is attached to execution {}", command.id);
        return Err(Error::conflict(message).into());
    };
    if !command.buffer.begin(terms.received) {
        let received = terms.received.unwrap_or_default();
        let message =
            format!("what follows {received} bytes of output of execution {} is not here", command.id);
        return Err(Error::conflict(message).into());
    }
    let (sessions, closing) = (app.sessions.clone(), app.closing.clone());
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade
        .on_upgrade(move |socket| sessions.track_future(session::serve(socket, attached, terms, closing))))
}

/// Seconds as the public API writes them.
pub(crate) fn seconds(value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| Error::invalid(format!("{value} is no number of seconds: {error}")))
}

/// Counts what a box's commands did, for its metrics.
pub(crate) fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

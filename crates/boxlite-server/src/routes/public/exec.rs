//! Commands in boxes, in the public API.

use std::collections::BTreeMap;
use std::string::FromUtf8Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxlite::{Error, ExecOptions, UnattendedPolicy, WindowSize};
use serde::{Deserialize, Serialize};

use super::{bodies, boxes};
use crate::app::App;
use crate::body::{JsonBody, PathParams, QueryParams};
use crate::executions::{
    AttachTerms, BegunExecution, ExecutionOutcome, ExecutionTerms, ServedExecution, ServedProcess,
};
use crate::failure::HttpFailure;
use crate::idempotency::RequestIdentity;

/// The size of a terminal until its client sets another.
const DEFAULT_TERMINAL: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Bytes of output in the answer to a request that waits for its command, both streams together.
const MAX_COLLECTED_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecRequest {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    tty: bool,
    /// Refuse instead of waiting for a paused box; not part of the public API.
    #[serde(default)]
    unless_paused: bool,
}

impl ExecRequest {
    fn options(self) -> boxlite::Result<ExecOptions> {
        let mut command = vec![self.command];
        command.extend(self.args);
        if command[0].is_empty() || command.iter().any(|word| word.contains('\0')) {
            return Err(Error::invalid("the command is empty or contains a NUL byte"));
        }
        Ok(ExecOptions {
            command,
            env: bodies::variables(self.env.unwrap_or_default())?,
            workdir: self.working_dir,
            user: self.user,
            tty: self.tty.then_some(DEFAULT_TERMINAL),
            stdin: true,
            unless_paused: self.unless_paused,
            timeout_ms: None,
        })
    }
}

/// The query of a request that begins a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ExecParams {
    /// Answer with the output and the status once the command has ended. Its standard input ends at once.
    wait: bool,
}

/// A command that was waited for.
#[derive(Debug, Serialize)]
struct FinishedExecution {
    execution_id: String,
    exit_code: i32,
    /// Why, where the exit code does not say it.
    reason: Option<String>,
    /// How `stdout` and `stderr` are written: base64 where one of them is not UTF-8.
    encoding: &'static str,
    stdout: String,
    stderr: String,
    /// Bytes of output that the answer has no room for.
    dropped_bytes: u64,
}

/// Begins a command, starting the box first where needed.
pub(super) async fn exec(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<ExecParams>,
    identity: Option<Extension<RequestIdentity>>,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Result<Response, HttpFailure> {
    let limit = request.timeout_seconds.map(seconds).transpose()?;
    let options = request.options()?;
    let terms = ExecutionTerms {
        unattended: UnattendedPolicy::HangUp,
        limit,
        process: ServedProcess::Command { tty: options.tty.is_some() },
    };
    let chosen = identity.map(|Extension(identity)| identity.into_id());
    let info = app.runtime.inspect(&id).await?;
    let info = boxes::run(&app, info).await?;
    let begun = app.executions.begin_in(&app.runtime, &info, options, terms, chosen).await?;
    let created = begun.created();
    if !created.started {
        let reason = match begun {
            BegunExecution::Held(state) => state.end.and_then(|end| end.reason),
            BegunExecution::Served(served, _) => {
                let outcome = served.ended().await;
                app.executions.forget(&served);
                match outcome {
                    Some(ExecutionOutcome::Exited(status)) => status.reason,
                    Some(ExecutionOutcome::Broken(error)) => Some(error.message),
                    None => None,
                }
            }
        };
        return Err(HttpFailure::not_started(
            reason.unwrap_or_else(|| "the command could not be started".into()),
        ));
    }
    if query.wait {
        let served = match begun {
            // It was begun by the same request to another server, which has handed out some of it.
            BegunExecution::Held(state) if state.output > state.held => {
                let message = "this request was carried out, and its output was handed out before";
                return Err(Error::conflict(message).into());
            }
            BegunExecution::Held(state) => {
                let terms = AttachTerms { with_stdin: true, received: None };
                app.executions.attach_in(&app.runtime, &info.id, &state.id, terms).await?
            }
            BegunExecution::Served(served, _) => served,
        };
        let finished = finished(&served).await;
        app.executions.leave_to_box(&served);
        return Ok(Json(finished?).into_response());
    }
    let location = format!("/v1/boxes/{}/executions/{}", info.id, created.execution_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)).into_response())
}

/// Waits for the end of a command that nobody else knows yet.
async fn finished(served: &Arc<ServedExecution>) -> Result<FinishedExecution, HttpFailure> {
    let output = served.collect(MAX_COLLECTED_BYTES).await?;
    let status = match served.ended().await {
        Some(ExecutionOutcome::Exited(status)) => status,
        Some(ExecutionOutcome::Broken(error)) => return Err(HttpFailure::of_running(error.into_error())),
        None => return Err(Error::conflict("the command was released before its end").into()),
    };
    let texts = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (encoding, stdout, stderr) = match texts {
        (Ok(stdout), Ok(stderr)) => ("utf-8", stdout, stderr),
        (stdout, stderr) => {
            let encode = |text: Result<String, FromUtf8Error>| match text {
                Ok(text) => STANDARD.encode(text),
                Err(bytes) => STANDARD.encode(bytes.as_bytes()),
            };
            ("base64", encode(stdout), encode(stderr))
        }
    };
    Ok(FinishedExecution {
        execution_id: served.id.clone(),
        exit_code: status.code,
        reason: status.reason,
        encoding,
        stdout,
        stderr,
        dropped_bytes: output.dropped,
    })
}

/// Reads seconds as the public API writes them.
fn seconds(value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| Error::invalid(format!("{value} is not a number of seconds: {error}")))
}

//! Commands in boxes, in the public API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::{Error, ExecOptions, WindowSize};
use serde::Deserialize;

use super::{bodies, boxes};
use crate::app::App;
use crate::body::{JsonBody, PathParams};
use crate::executions::{ExecutionTerms, UnattendedPolicy};
use crate::failure::HttpFailure;

/// The size of a terminal until its client sets another.
const DEFAULT_TERMINAL: WindowSize = WindowSize { rows: 24, columns: 80 };

#[derive(Debug, Deserialize)]
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

/// Begins a command, starting the box first where needed.
pub(super) async fn exec(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Result<impl IntoResponse, HttpFailure> {
    let limit = request.timeout_seconds.map(seconds).transpose()?;
    let options = request.options()?;
    let terms = ExecutionTerms {
        unattended: UnattendedPolicy::HangUp,
        limit,
        input_may_have_gaps: options.tty.is_some(),
    };
    let info = app.runtime.inspect(&id).await?;
    let permit = app.executions.take_permit()?;
    let info = boxes::run(&app, info).await?;
    let execution = app.runtime.exec(&info.id, options).await.map_err(HttpFailure::of_running)?;
    let (served, started) = app.executions.begin(permit, &info, execution, terms).await?;
    let location = format!("/v1/boxes/{}/executions/{}", info.id, served.id);
    let created = served.created(started);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)))
}

/// Reads seconds as the public API writes them.
fn seconds(value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| Error::invalid(format!("{value} is not a number of seconds: {error}")))
}

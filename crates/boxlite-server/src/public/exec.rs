//! Commands in boxes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::{Error, ExecOptions, WindowSize};
use serde::Deserialize;

use super::{bodies, boxes};
use crate::App;
use crate::body::{Json, Path};
use crate::executions::{Abandoned, seconds};
use crate::failure::Failure;

/// The size of a terminal until its client says otherwise.
const USUAL_TERMINAL: WindowSize = WindowSize { rows: 24, columns: 80 };

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
            tty: self.tty.then_some(USUAL_TERMINAL),
            stdin: true,
        })
    }
}

/// Begins a command, in a box that is started first if it does not run.
pub(super) async fn exec(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(request): Json<ExecRequest>,
) -> Result<impl IntoResponse, Failure> {
    let limit = request.timeout_seconds.map(seconds).transpose()?;
    let options = request.options()?;
    let info = app.runtime.inspect(&id).await?;
    let room = app.executions.take_room()?;
    let info = boxes::run(&app, info).await?;
    let execution = app.runtime.exec(&info.id, options).await.map_err(Failure::of_running)?;
    let (command, started) = app.executions.begin(room, &info, execution, Abandoned::HungUp, limit).await?;
    let location = format!("/v1/boxes/{}/executions/{}", info.id, command.id);
    let created = command.created(started);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(created)))
}

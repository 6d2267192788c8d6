//! Logs, commands and the main process.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxlite::wire::ExecutionCreated;
use boxlite::{Error, ExecOptions, LogOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::App;
use crate::body::{Json, Path, Query};
use crate::executions::Abandoned;
use crate::failure::Failure;
use crate::progress;

/// Options of the library, as JSON in the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OptionsQuery {
    options: Option<String>,
}

impl OptionsQuery {
    /// The options; the default ones when there are none.
    pub(super) fn options<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        let Some(text) = &self.options else { return Ok(T::default()) };
        serde_json::from_str(text).map_err(|error| {
            Error::invalid(format!("the query's options are not this route's: {error}")).into()
        })
    }
}

pub(super) async fn logs(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<OptionsQuery>,
) -> Result<Response, Failure> {
    Ok(progress::log(app.runtime.logs(&id, query.options::<LogOptions>()?).await?))
}

type Created = (StatusCode, Answer<ExecutionCreated>);

pub(super) async fn exec(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(options): Json<ExecOptions>,
) -> Result<Created, Failure> {
    let info = app.runtime.inspect(&id).await?;
    let room = app.executions.take_room()?;
    let execution = app.runtime.exec(&info.id, options).await.map_err(Failure::of_running)?;
    let (command, started) = app.executions.begin(room, &info, execution, Abandoned::LetGo, None).await?;
    Ok((StatusCode::CREATED, Answer(command.created(started))))
}

pub(super) async fn attach(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Created, Failure> {
    let info = app.runtime.inspect(&id).await?;
    let room = app.executions.take_room()?;
    let execution = app.runtime.attach(&info.id).await.map_err(Failure::of_running)?;
    let (command, started) = app.executions.begin(room, &info, execution, Abandoned::LetGo, None).await?;
    Ok((StatusCode::CREATED, Answer(command.created(started))))
}

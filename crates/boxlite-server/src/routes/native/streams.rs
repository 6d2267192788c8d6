//! Logs, commands and the main process in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxlite::wire::ExecutionCreated;
use boxlite::{Error, ExecOptions, LogOptions, UnattendedPolicy};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::body::{JsonBody, PathParams, QueryParams};
use crate::executions::{ExecutionTerms, ServedProcess};
use crate::failure::HttpFailure;
use crate::progress;

/// The library's options, as JSON in the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OptionsQuery {
    options: Option<String>,
}

impl OptionsQuery {
    /// Returns the options, or the defaults when the query has none.
    pub(super) fn options<T: DeserializeOwned + Default>(&self) -> Result<T, HttpFailure> {
        let Some(text) = &self.options else { return Ok(T::default()) };
        serde_json::from_str(text).map_err(|error| {
            Error::invalid(format!("the query's options are not this route's: {error}")).into()
        })
    }
}

pub(super) async fn logs(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<OptionsQuery>,
) -> Result<Response, HttpFailure> {
    let options = query.options::<LogOptions>()?;
    // A stream that is not followed ends by itself.
    let stopping = if options.follow { app.drain.stopping.clone() } else { CancellationToken::new() };
    Ok(progress::log(app.runtime.logs(&id, options).await?, stopping))
}

type CreatedExecution = (StatusCode, Json<ExecutionCreated>);

pub(super) async fn exec(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    JsonBody(options): JsonBody<ExecOptions>,
) -> Result<CreatedExecution, HttpFailure> {
    let info = app.runtime.inspect(&id).await?;
    let terms = ExecutionTerms {
        unattended: UnattendedPolicy::Release,
        limit: None,
        process: ServedProcess::Command { tty: options.tty.is_some() },
    };
    let begun = app.executions.begin_in(&app.runtime, &info, options, terms, None).await?;
    Ok((StatusCode::CREATED, Json(begun.created())))
}

pub(super) async fn attach(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<CreatedExecution, HttpFailure> {
    let info = app.runtime.inspect(&id).await?;
    let permit = app.executions.take_permit()?;
    let execution = app.runtime.attach(&info.id).await.map_err(HttpFailure::of_running)?;
    let terms = ExecutionTerms::of_main_process(&info);
    let (served, started) = app.executions.begin(permit, &info, execution, terms).await?;
    Ok((StatusCode::CREATED, Json(served.created(started))))
}

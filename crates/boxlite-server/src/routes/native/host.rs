//! The host in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use boxlite::{Activity, EventOptions, EventPage, HostInfo, ListOptions, Usage};

use super::streams::OptionsQuery;
use crate::app::App;
use crate::body::QueryParams;
use crate::caller::Caller;
use crate::failure::HttpFailure;

pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<HostInfo>, HttpFailure> {
    Ok(Json(app.runtime.info().await?))
}

pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<Json<Usage>, HttpFailure> {
    Ok(Json(app.runtime.disk_usage().await?))
}

pub(super) async fn activity(State(app): State<Arc<App>>) -> Result<Json<Activity>, HttpFailure> {
    Ok(Json(app.runtime.activity().await?))
}

/// The events that the caller may see: the holder of a key of several sees those of its boxes that are still there.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<OptionsQuery>,
) -> Result<Json<EventPage>, HttpFailure> {
    let mut page = app.runtime.events(query.options::<EventOptions>()?).await?;
    if let Caller::Named(_) = &caller {
        let boxes = app.runtime.list(ListOptions { all: true, ..ListOptions::default() }).await?;
        page.events.retain(|event| boxes.iter().any(|info| info.id == event.id && caller.sees(info)));
    }
    Ok(Json(page))
}

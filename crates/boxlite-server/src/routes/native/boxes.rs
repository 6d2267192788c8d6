//! Boxes in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxlite::wire::{KillRequest, RemoveQuery};
use boxlite::{
    BoxInfo, BoxOptions, CloneOptions, Consumption, GuestProcesses, ListOptions, ProgressSink, PullOptions,
    PullPolicy, RemoveOptions, StopOptions, UpdateOptions,
};

use super::streams::OptionsQuery;
use crate::app::App;
use crate::body::{JsonBody, OptionalJsonBody, PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::progress;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<OptionsQuery>,
) -> Result<Json<Vec<BoxInfo>>, HttpFailure> {
    let mut boxes = app.runtime.list(query.options::<ListOptions>()?).await?;
    boxes.retain(|info| caller.sees(info));
    Ok(Json(boxes))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(options): JsonBody<BoxOptions>,
) -> Result<Response, HttpFailure> {
    let options = caller.owned(options)?;
    let options = app.with_allowed(move |allowed| allowed.check(options)).await?;
    let pending = app.allowances.reserve(&app.runtime, &caller, &options).await?;
    app.own_volumes(&caller, &options.volumes).await?;
    app.own_networks(&caller, options.networks.iter()).await?;
    let is_named = caller.is_named();
    let create = |progress: Arc<dyn ProgressSink>| async move {
        let mut options = options;
        if is_named && options.pull == PullPolicy::Always {
            let pull = PullOptions {
                policy: PullPolicy::Always,
                insecure: options.insecure,
                insecure_credentials: options.insecure_credentials,
                platform: None,
                keep_given_names: true,
            };
            let pulled = app.runtime.pull(&options.image, pull, Arc::clone(&progress)).await;
            pulled.map_err(HttpFailure::of_pull)?;
            options.pull = PullPolicy::Missing;
        }
        let created = app.runtime.create(options, progress).await.map_err(HttpFailure::of_create);
        drop(pending);
        created
    };
    Ok(progress::events(create).await)
}

pub(super) async fn clone(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
    JsonBody(options): JsonBody<CloneOptions>,
) -> Result<Response, HttpFailure> {
    let options = app.allowed_clone(options).await?;
    let pending = app.reserve_clone(&caller, &id, &options).await?;
    app.own_volumes(&caller, options.volumes.as_deref().unwrap_or_default()).await?;
    let clone = |_| async move {
        let cloned = app.runtime.clone_box(&id, options).await;
        drop(pending);
        Ok(cloned?)
    };
    Ok(progress::events(clone).await)
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<BoxInfo>, HttpFailure> {
    Ok(Json(app.runtime.inspect(&id).await?))
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
    JsonBody(options): JsonBody<UpdateOptions>,
) -> Result<Json<BoxInfo>, HttpFailure> {
    let ports = options.allow_host.clone();
    app.with_allowed(move |allowed| allowed.host_ports(ports.as_deref().unwrap_or_default())).await?;
    app.own_networks(&caller, options.networks.iter().flatten().chain(&options.join)).await?;
    let _pending = app.reserve_update(&caller, &id, &options).await?;
    Ok(Json(app.runtime.update(&id, options).await?))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<RemoveQuery>,
) -> Result<StatusCode, HttpFailure> {
    // A box with a damaged record can still be removed.
    let known = app.runtime.inspect(&id).await.map(|info| info.id);
    app.runtime.remove(&id, RemoveOptions { force: query.force }).await?;
    app.executions.forget_box(known.as_deref().unwrap_or(&id));
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Response, HttpFailure> {
    let start = |progress| async move {
        let info = app.runtime.inspect(&id).await?;
        Ok(app.start(info, progress).await?)
    };
    Ok(progress::events(start).await)
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    OptionalJsonBody(options): OptionalJsonBody<StopOptions>,
) -> Result<Response, HttpFailure> {
    Ok(progress::events(|_| async move { Ok(app.runtime.stop(&id, options).await?) }).await)
}

pub(super) async fn pause(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<BoxInfo>, HttpFailure> {
    Ok(Json(app.runtime.pause(&id).await?))
}

pub(super) async fn unpause(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<BoxInfo>, HttpFailure> {
    Ok(Json(app.runtime.unpause(&id).await?))
}

pub(super) async fn kill(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<KillRequest>,
) -> Result<StatusCode, HttpFailure> {
    let signal = boxlite::parse_signal(&request.signal.to_string())?;
    app.runtime.kill(&id, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn wait(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Response, HttpFailure> {
    let ended = |_| async move { app.drain.until_stopping(async { Ok(app.runtime.wait(&id).await?) }).await };
    Ok(progress::events(ended).await)
}

pub(super) async fn consumption(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<Consumption>, HttpFailure> {
    Ok(Json(app.runtime.consumption(&id).await?))
}

pub(super) async fn processes(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<GuestProcesses>, HttpFailure> {
    Ok(Json(app.runtime.processes(&id).await?))
}

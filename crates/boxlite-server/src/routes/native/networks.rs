//! Networks in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use boxlite::{ErrorKind, NetworkInfo, NetworkOptions, NetworkPrune};

use crate::app::App;
use crate::body::{JsonBody, PathParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Vec<NetworkInfo>>, HttpFailure> {
    let mut networks = app.runtime.networks().await?;
    networks.retain(|network| caller.sees_network(network));
    Ok(Json(networks))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(options): JsonBody<NetworkOptions>,
) -> Result<Json<NetworkInfo>, HttpFailure> {
    Ok(Json(app.runtime.create_network(caller.owned_network(options)?).await?))
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<NetworkInfo>, HttpFailure> {
    Ok(Json(app.network(&caller, &name).await?))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<()>, HttpFailure> {
    if caller.is_named() {
        app.network(&caller, &name).await?;
    }
    Ok(Json(app.runtime.remove_network(&name).await?))
}

/// Removes what no box is in; of the holder of a key of several, only what is its own.
pub(super) async fn prune(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<NetworkPrune>, HttpFailure> {
    if !caller.is_named() {
        return Ok(Json(app.runtime.prune_networks().await?));
    }
    let mut pruned = NetworkPrune::default();
    for network in app.runtime.networks().await? {
        if !caller.sees_network(&network) || !network.boxes.is_empty() {
            continue;
        }
        match app.runtime.remove_network(&network.name).await {
            Ok(()) => pruned.removed.push(network.name),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(error) => pruned.failures.push(error.chain().to_string()),
        }
    }
    Ok(Json(pruned))
}

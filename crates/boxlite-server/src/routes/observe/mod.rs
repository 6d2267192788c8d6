//! Monitoring: `/metrics`, liveness, and readiness to start boxes.

mod text;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use boxlite::wire::{Room, ServerReadiness};
use boxlite::{HostInfo, ListOptions, Verdict};
use serde_json::json;

use crate::app::App;
use crate::failure::HttpFailure;
use text::MetricsSnapshot;

/// Returns the routes.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

async fn alive() -> Json<serde_json::Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let host = app.observations.host().await;
    let obstacle = match &host {
        _ if app.drain.stopping.is_cancelled() => Some("this server is stopping".to_owned()),
        Ok(info) => obstacle(info),
        Err(error) => Some(error.chain().to_string()),
    };
    let room = host.ok().map(|info| room(&info));
    match obstacle {
        None => Json(ServerReadiness::ready().with_room(room)).into_response(),
        Some(reason) => {
            let body = Json(ServerReadiness::not_ready(reason).with_room(room));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Returns the room for further boxes.
fn room(info: &HostInfo) -> Room {
    let disk = info.space.as_ref().map(|space| {
        let claimed = space.claims.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let floor = space.floors.map_or(0, |floors| floors.hard);
        space.free.bytes.saturating_sub(claimed).saturating_sub(floor)
    });
    let memory = info.memory.as_ref().map(|memory| {
        // Guests that wait for a box give way to one.
        let promised = memory.promises.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        memory.limit.saturating_sub(promised)
    });
    Room { disk, memory }
}

/// Returns why a start would be refused now, if it would.
fn obstacle(info: &HostInfo) -> Option<String> {
    if let Some(problem) = &info.acceleration_problem {
        return Some(problem.clone());
    }
    if let Some(missing) = info.assets.iter().find(|asset| asset.path.is_none() && !asset.optional) {
        return Some(format!("this host lacks {}: {}", missing.name, missing.remedy));
    }
    if let Some(memory) = info.memory.as_ref().filter(|memory| memory.full) {
        let promised = memory.promised();
        return Some(format!(
            "too little memory for a start: boxes may have {} bytes, of which {promised} are promised to {} boxes",
            memory.limit,
            memory.promises.len()
        ));
    }
    // A start whose free space cannot be read is not refused.
    let space = info.space.as_ref().filter(|space| space.verdict == Verdict::Reject)?;
    let (free, claimed) = (space.free.bytes, space.claims.iter().sum::<u64>());
    Some(format!(
        "too little disk space for a start: {free} bytes and {} inodes are free, {claimed} bytes of them claimed",
        space.free.inodes
    ))
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, HttpFailure> {
    let info = app.observations.host().await?;
    let plan = app.observations.plan().await;
    let boxes = app.runtime.list(ListOptions { all: true, filters: Vec::new() }).await?;
    let measured = if app.has_box_metrics { app.observations.consumption(&boxes).await } else { Vec::new() };
    let figures = MetricsSnapshot {
        info: &info,
        plan: plan.as_deref(),
        boxes: &boxes,
        activity: &app.runtime.activity().await?,
        executions: app.executions.running(),
        connections: app.connections.counts(),
        measured: &measured,
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], figures.text()).into_response())
}

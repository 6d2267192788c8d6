//! What watches this server: metrics, and whether it lives and starts boxes.

mod recent;
mod text;

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use boxlite::Verdict;
use boxlite::{GcOptions, GcReport, HostInfo, ListOptions, Result};
use serde_json::json;

use super::App;
use super::failure::Failure;
use recent::Recent;
use text::Figures;

/// How old the plan of a collection may be when it is shown: making one walks the whole home.
const PLAN_AGE: Duration = Duration::from_secs(15);
/// How long a scrape waits for a plan; one that takes longer is shown to the next, and this one the plan before it.
const PLAN_PATIENCE: Duration = Duration::from_secs(5);
/// How old what is known of the host may be.
const INFO_AGE: Duration = Duration::from_secs(1);

/// The routes; the caller decides who may see them.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// What was found out lately.
#[derive(Debug)]
pub(super) struct Observations {
    plan: Recent<GcReport>,
    info: Recent<HostInfo>,
}

impl Default for Observations {
    fn default() -> Self {
        Self { plan: Recent::new(PLAN_AGE), info: Recent::new(INFO_AGE) }
    }
}

impl App {
    async fn host(&self) -> Result<Arc<HostInfo>> {
        let runtime = self.runtime.clone();
        self.observations.info.get(|| async move { runtime.info().await }).await
    }

    /// A plan that cannot be made, or takes long and is the first, is missing.
    async fn plan(&self) -> Option<Arc<GcReport>> {
        let (runtime, options) = (self.runtime.clone(), GcOptions { dry_run: true, ..GcOptions::default() });
        let plan = &self.observations.plan;
        let making = plan.get(|| async move { runtime.collect_garbage(options).await });
        match tokio::time::timeout(PLAN_PATIENCE, making).await {
            Ok(made) => made
                .inspect_err(|error| tracing::warn!(error = %error.chain(), "gc could not be planned"))
                .ok(),
            Err(_) => plan.latest(),
        }
    }
}

async fn alive() -> Answer<serde_json::Value> {
    Answer(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let obstacle = match app.host().await {
        Ok(info) => obstacle(&info),
        Err(error) => Some(error.chain().to_string()),
    };
    match obstacle {
        None => Answer(json!({"status": "ready"})).into_response(),
        Some(reason) => {
            let body = Answer(json!({"status": "not_ready", "reason": reason}));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Why a start would be refused now.
fn obstacle(info: &HostInfo) -> Option<String> {
    if let Some(problem) = &info.acceleration_problem {
        return Some(problem.clone());
    }
    if let Some(missing) = info.assets.iter().find(|asset| asset.path.is_none() && !asset.optional) {
        return Some(format!("this host lacks {}: {}", missing.name, missing.remedy));
    }
    // Unknown space refuses nothing.
    let space = info.space.as_ref().filter(|space| space.verdict == Verdict::Reject)?;
    let (free, claimed) = (space.free.bytes, space.claims.iter().sum::<u64>());
    Some(format!(
        "too little disk space for a start: {free} bytes and {} inodes are free, {claimed} bytes of them reserved",
        space.free.inodes
    ))
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let info = app.host().await?;
    let plan = app.plan().await;
    let figures = Figures {
        info: &info,
        plan: plan.as_deref(),
        boxes: &app.runtime.list(ListOptions { all: true, filters: Vec::new() }).await?,
        activity: &app.runtime.activity().await?,
        executions: app.executions.running(),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], figures.text()).into_response())
}

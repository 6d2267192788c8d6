//! The host's disk in the library's dialect: what fills it, its past, and what gc does about it. For the operator alone,
//! because it tells of everybody's boxes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use boxlite::gc::{DiskTree, RemovalFailure, Unreadable};
use boxlite::{FreeSpace, GcOptions, GcReport, ListOptions};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{JsonBody, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::history::HistoryColumns;

pub(super) async fn tree(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<DiskTree>, HttpFailure> {
    caller.refuse_named("see the tree of the disk", "it tells of everybody's boxes")?;
    Ok(Json(app.runtime.disk_tree().await?))
}

/// Which samples to return.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Only those of the host after this time, in seconds since 1970.
    after: Option<i64>,
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<HistoryQuery>,
) -> Result<Json<HistoryColumns>, HttpFailure> {
    caller.refuse_named("see the past of the disk", "it tells of everybody's boxes")?;
    Ok(Json(app.history.columns(query.after)))
}

/// The report of a pass, each item with its reason in words.
#[derive(Debug, Serialize)]
pub(super) struct Collection {
    dry_run: bool,
    items: Vec<CollectedItem>,
    reclaimed: u64,
    partial: bool,
    free_before: Option<FreeSpace>,
    free_after: Option<FreeSpace>,
    unreadable: Vec<Unreadable>,
    failures: Vec<RemovalFailure>,
}

/// An item as `boxlite gc` lists it.
#[derive(Debug, Serialize)]
struct CollectedItem {
    kind: &'static str,
    name: String,
    allocated: u64,
    last_used: i64,
    fate: &'static str,
    why: String,
}

/// `boxlite gc` on this host.
pub(super) async fn collect(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(options): JsonBody<GcOptions>,
) -> Result<Json<Collection>, HttpFailure> {
    caller.refuse_named("collect garbage", "images are everybody's")?;
    let report = app.runtime.collect_garbage(options).await?;
    let boxes = app.runtime.list(ListOptions { all: true, ..ListOptions::default() }).await?;
    let names = boxes.into_iter().map(|info| (info.id, info.name)).collect();
    Ok(Json(Collection::of(report, &names)))
}

impl Collection {
    fn of(report: GcReport, names: &HashMap<String, String>) -> Self {
        let name = |id: &str| names.get(id).cloned();
        let kinds = report.kinds().into_iter();
        let items = kinds.flat_map(|(kind, items)| items.iter().map(move |item| (kind, item)));
        let items = items.map(|(kind, item)| CollectedItem {
            kind,
            name: item.name.clone(),
            allocated: item.allocated,
            last_used: item.last_used,
            fate: item.fate.label(report.dry_run),
            why: item.fate.why(&name),
        });
        Self {
            dry_run: report.dry_run,
            items: items.collect(),
            reclaimed: report.reclaimed,
            partial: report.partial,
            free_before: report.free_before,
            free_after: report.free_after,
            unreadable: report.unreadable,
            failures: report.failures,
        }
    }
}

//! The version and the capabilities of this server, in the public API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use boxlite::BoxOptions;
use serde_json::{Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::executions::MAX_EXECUTIONS;

/// The description of every route.
const DESCRIPTION: &str = include_str!("../../../openapi.yaml");

pub(super) async fn config(State(app): State<Arc<App>>) -> Json<Value> {
    let defaults = BoxOptions::default();
    Json(json!({
        "defaults": {
            "cpus": defaults.cpus,
            "memory_mib": defaults.memory >> 20,
            "auto_delete": 0,
        },
        "overrides": {},
        "authentication": if app.gate.needs_key() { "key" } else { "none" },
        "capabilities": {
            "linux_capabilities_enabled": false,
            "max_concurrent_executions": MAX_EXECUTIONS,
            "tty_enabled": true,
            "exec_user_enabled": true,
            "streaming_enabled": true,
            "snapshots_enabled": true,
            "clone_enabled": true,
            "export_enabled": true,
            "import_enabled": true,
        },
    }))
}

pub(super) async fn me(caller: Caller) -> Json<Value> {
    Json(json!({
        "sub": "boxlite-serve",
        "principal_type": "service_account",
        "display_name": caller.display_name(),
        "path_prefix": null,
        "scopes": ["box:read", "box:write", "box:exec", "box:delete", "me:read"],
        "expires_at": null,
    }))
}

pub(super) async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], DESCRIPTION)
}

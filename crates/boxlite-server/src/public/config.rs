//! What this server is and can do.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use boxlite::BoxOptions;
use serde_json::{Value, json};

use crate::App;
use crate::executions::MAX_COMMANDS;

/// The description of everything that is served.
const DESCRIPTION: &str = include_str!("../../openapi.yaml");

pub(super) async fn config() -> Answer<Value> {
    let defaults = BoxOptions::default();
    Answer(json!({
        "defaults": {
            "cpus": defaults.cpus,
            "memory_mib": defaults.memory >> 20,
            "auto_delete": 0,
        },
        "overrides": {},
        "capabilities": {
            "linux_capabilities_enabled": false,
            "max_concurrent_executions": MAX_COMMANDS,
            "tty_enabled": true,
            "streaming_enabled": true,
            "snapshots_enabled": false,
            "clone_enabled": true,
            "export_enabled": false,
            "import_enabled": false,
        },
    }))
}

pub(super) async fn me(State(app): State<Arc<App>>) -> Answer<Value> {
    Answer(json!({
        "sub": "boxlite-serve",
        "principal_type": "service_account",
        "display_name": if app.key.is_some() { "holder of the API key" } else { "program of this host" },
        "path_prefix": null,
        "scopes": ["box:read", "box:write", "box:exec", "box:delete", "me:read"],
        "expires_at": null,
    }))
}

pub(super) async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], DESCRIPTION)
}

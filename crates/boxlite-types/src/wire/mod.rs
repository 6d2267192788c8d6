//! Bodies and frames of the HTTP API that both of its ends share.
//!
//! The server speaks two dialects under one version prefix. `/v1/boxes…`, `/v1/images…`, `/v1/config` and `/v1/me`
//! follow the public `BoxLite` REST API, so that its published clients work. `/v1/runtime/…` is the native dialect: one
//! route for each operation of the façade's `Runtime`, with this library's own types as bodies, spoken by a remote
//! `Runtime`. Executions (their WebSocket, signals and sizes) and file transfers are the same routes for both.

mod attach;
mod failure;
mod progress;
mod readiness;
mod requests;

pub use attach::{Channel, ClientFrame, PING, ServerFrame, WINDOW};
pub use failure::{ErrorBody, ErrorDetail, ErrorEnvelope};
pub use progress::{Event, LogEvent, LogRecord};
pub use readiness::{Room, ServerReadiness};
pub use requests::{
    AttachQuery, ExecutionCreated, ImageQuery, KillRequest, PathQuery, PullRequest, PushRequest, RemoveQuery,
    SaveRequest, TUNNEL_PROTOCOL, TagRequest, TunnelQuery,
};

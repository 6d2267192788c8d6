//! Requests and small answers that are not a type of the façade already.

use serde::{Deserialize, Serialize};

use crate::{ArchiveFormat, PullOptions, PushOptions};

/// The body of `POST /v1/runtime/images`, answered with events that end in an [`crate::Image`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PullRequest {
    /// The image to fetch.
    pub reference: String,
    /// How.
    #[serde(default)]
    pub options: PullOptions,
}

/// The query of `GET` and `DELETE /v1/runtime/image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageQuery {
    /// A reference, a digest or a unique digest prefix.
    pub wanted: String,
    /// Remove it although a box uses it.
    #[serde(default)]
    pub force: bool,
}

/// The body of `POST /v1/runtime/image/tags`, answered with the [`crate::Image`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    /// A reference, a digest or a unique digest prefix.
    pub wanted: String,
    /// The name to give.
    pub name: String,
}

/// The body of `POST /v1/runtime/image/push`, answered with events that end in an [`crate::Image`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRequest {
    /// A reference, a digest or a unique digest prefix.
    pub wanted: String,
    /// Where to, when `wanted` does not say.
    #[serde(default)]
    pub target: Option<String>,
    /// How.
    #[serde(default)]
    pub options: PushOptions,
}

/// The selection that `GET /v1/runtime/archive` packs, as JSON in the query parameter `request`; the answer is a tar
/// stream. `PUT` takes such a stream and answers with a list of [`crate::Image`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveRequest {
    /// References, digests or unique digest prefixes.
    pub images: Vec<String>,
    /// In which form.
    #[serde(default)]
    pub format: ArchiveFormat,
}

/// The query of `DELETE /v1/runtime/boxes/{id}` and `DELETE /v1/boxes/{id}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveQuery {
    /// Kill it first if it runs.
    pub force: bool,
}

/// The query of `GET` and `PUT /v1/boxes/{id}/files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathQuery {
    /// A path in the box.
    pub path: String,
    /// See [`crate::CopyOptions::archive`]; `PUT` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive: bool,
    /// See [`crate::CopyOptions::follow_link`]; `GET` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow_symlinks: bool,
    /// See [`crate::CopyOptions::unless_paused`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unless_paused: bool,
}

/// The protocol in the header `Upgrade` of a request for a tunnel: after the answer, the connection carries the bytes of the
/// service and nothing else.
pub const TUNNEL_PROTOCOL: &str = "tcp";

/// The query of `/v1/boxes/{id}/network/tunnel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelQuery {
    /// A TCP port inside the box.
    pub port: u16,
}

/// The body of `POST /v1/runtime/boxes/{id}/kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillRequest {
    /// Signal number.
    pub signal: i32,
}

/// The answer to a request that begins an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionCreated {
    /// Names it in `/v1/boxes/{id}/executions/{execution_id}/…`.
    pub execution_id: String,
    /// Whether the process runs; `false` when it could not be run, and its exit frame says why.
    #[serde(default = "yes")]
    pub started: bool,
    /// Whether its standard input is connected.
    #[serde(default = "yes")]
    pub stdin: bool,
}

/// The default of fields that a server leaves out: the behaviour of the public API's executions.
fn yes() -> bool {
    true
}

/// The query of `GET /v1/boxes/{id}/executions/{execution_id}/attach`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachQuery {
    /// The client acknowledges, and so many bytes of output have reached it already: 0 on its first attachment. The
    /// server continues after them, or answers 409 when it no longer has the bytes that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
}

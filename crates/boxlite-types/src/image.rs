//! An image as the catalogue knows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Digest, HealthCheck, Platform, PullPolicy};

/// An image that the home has: pulled, verified and described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its manifest, which is its identity.
    pub digest: Digest,
    /// Canonical references that name it, sorted; none for an image whose tags have moved on.
    pub references: Vec<String>,
    /// The platform that it is built for.
    pub platform: Platform,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// When it was pulled, or last pulled again.
    pub pulled_at: Timestamp,
    /// When a box was last made from it or started, or it was pulled.
    pub last_used_at: Timestamp,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the blob as it is stored, compressed or not.
    pub digest: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Media type as the manifest has it.
    pub media_type: String,
    /// Bytes of the blob.
    pub length: u64,
}

impl Image {
    /// The first 12 hex digits of the digest.
    pub fn short_id(&self) -> String {
        self.digest.hex()[..12].to_owned()
    }

    /// Bytes of all layers as they are stored (lengths, not allocated bytes; blobs are shared between images).
    pub fn stored_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.length).sum()
    }

    /// The uncompressed layers' digests, lowest first: what the disk image is made of.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }
}

/// One effect of removing an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// The reference, in its familiar form, names no image any more.
    Untagged(String),
    /// The image is no longer in the catalogue; `boxlite gc` frees the files that only it used.
    Deleted(Digest),
}

/// How an image wants to be run (OCI image spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`: the default arguments of the entrypoint, or the command itself.
    pub cmd: Vec<String>,
    /// `Env`: `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`; empty for `/`.
    pub working_dir: String,
    /// `User`: `user[:group]`, names or numbers; empty for root.
    pub user: String,
    /// `StopSignal`: a name or a number.
    pub stop_signal: Option<String>,
    /// `ExposedPorts`: `port[/protocol]`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`: paths that the image expects to be mounted.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `Healthcheck`, Docker's addition to the specification; `None` for images that were pulled before it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// When the image was made, as its author wrote it.
    pub created: Option<String>,
}

/// How to pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullOptions {
    /// Whether to ask the source although the home has the image.
    pub policy: PullPolicy,
    /// Allows plain HTTP, and certificates without a trusted issuer, with the registry that the reference names.
    pub insecure: bool,
    /// Sends credentials to that registry all the same; without it, an insecure registry gets none.
    pub insecure_credentials: bool,
    /// The platform that the image must be built for; the host's when absent.
    pub platform: Option<Platform>,
    /// Refuses to move a name that was given to an image here. A server asks for it on behalf of its clients, so it is no
    /// part of a request.
    #[serde(skip)]
    pub keep_given_names: bool,
}

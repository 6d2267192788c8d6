//! What is asked about images besides pulling them, and what is answered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// One step of an image's making, as its config records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The image that ends here; of all steps but the last only its own registry would know it.
    pub digest: Option<Digest>,
    /// When, as the author wrote it.
    pub created: Option<String>,
    /// The command that made it.
    pub created_by: String,
    /// Who made it.
    pub author: String,
    /// The author's words about it.
    pub comment: String,
    /// Digest of the layer that the step made, uncompressed; none where it changed the configuration alone.
    pub layer: Option<Digest>,
    /// Bytes of that layer as it is stored; 0 without one.
    pub size: u64,
}

/// How an image is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushOptions {
    /// As in [`crate::PullOptions::insecure`].
    pub insecure: bool,
    /// As in [`crate::PullOptions::insecure_credentials`].
    pub insecure_credentials: bool,
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveFormat {
    /// What `docker save` writes: it can be read as an archive of Docker's and as an OCI layout.
    #[default]
    DockerArchive,
    /// An OCI layout alone.
    OciArchive,
}

/// What a logout has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// Whether there were credentials of ours.
    pub was_logged_in: bool,
    /// A file of another program's, such as Podman's `auth.json`, that still has some for the registry.
    pub still_in: Option<PathBuf>,
}

/// What a registry is told to let someone in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The registry, `host[:port]`; Docker Hub is `docker.io`.
    pub registry: String,
    /// The user's name.
    pub user: String,
    /// Password or access token.
    pub password: String,
    /// As in [`crate::PullOptions::insecure`]; the credentials are sent all the same, because that is what was asked for.
    pub insecure: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("registry", &self.registry)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

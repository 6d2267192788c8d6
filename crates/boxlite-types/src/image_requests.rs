//! Requests about images besides pulling them, and their answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Digest, Image};

/// One step of an image's making, as its config records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The image that ends here; of all steps but the last only its own registry would know it.
    pub digest: Option<Digest>,
    /// When, as the author wrote it.
    pub created: Option<String>,
    /// The command that made it.
    pub created_by: String,
    /// Its author.
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

/// How a built disk image is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskImagePushOptions {
    /// The repository for it, `[HOST[:PORT]/]NAME`; that of the image where none is given.
    pub to: Option<String>,
    /// A file with an ed25519 private key in PEM, to sign it with.
    pub sign_key: Option<PathBuf>,
    /// As in [`crate::PullOptions::insecure`].
    pub insecure: bool,
    /// As in [`crate::PullOptions::insecure_credentials`].
    pub insecure_credentials: bool,
}

/// A built disk image that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskImagePush {
    /// The image's digest.
    pub image: Digest,
    /// The digest of the artifact's manifest.
    pub artifact: Digest,
    /// The repository, with its registry.
    pub repository: String,
    /// The public key of the signature, as the setting `image_fetch_keys` takes it.
    pub key: Option<String>,
}

/// How a built disk image is fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskImageFetchOptions {
    /// The repository that has it, `[HOST[:PORT]/]NAME`; that of the image where none is given.
    pub from: Option<String>,
    /// As in [`crate::PullOptions::insecure`].
    pub insecure: bool,
    /// As in [`crate::PullOptions::insecure_credentials`].
    pub insecure_credentials: bool,
}

/// An image whose built disk image is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskImageFetch {
    /// The image.
    pub image: Image,
    /// The digest of the artifact that was fetched; none where the disk image was there.
    pub artifact: Option<Digest>,
    /// Whether the layers are there as well.
    pub layers: bool,
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveFormat {
    /// The format of `docker save`: it can be read as an archive of Docker's and as an OCI layout.
    #[default]
    DockerArchive,
    /// An OCI layout alone.
    OciArchive,
}

/// The changes of a logout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// Whether there were credentials of ours.
    pub was_logged_in: bool,
    /// A file of another program's, such as Podman's `auth.json`, that still has some for the registry.
    pub still_in: Option<PathBuf>,
}

/// The credentials for a registry.
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

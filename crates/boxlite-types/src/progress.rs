//! Progress of pulls and builds.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A step of a pull or a build. Bytes are those of compressed layers, or of the layers' contents for a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress {
    /// The source is being asked for the document at the reference.
    Resolving {
        /// In its familiar form.
        reference: String,
    },
    /// The image is known: these blobs make it.
    Resolved {
        /// Manifest digest.
        digest: Digest,
        /// Digest and bytes of each layer, lowest first.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer is in the home already.
    Present {
        /// The layer.
        layer: Digest,
    },
    /// Another pull is fetching the layer, and this one waits for it.
    Waiting {
        /// The layer.
        layer: Digest,
    },
    /// So much of a layer has arrived; it may fall back when a transfer starts over.
    Transferring {
        /// The layer.
        layer: Digest,
        /// Bytes that have arrived.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A layer has arrived and its digest is right.
    Transferred {
        /// The layer.
        layer: Digest,
    },
    /// A transfer broke off and is tried again after a pause.
    Retrying {
        /// The failure, in one sentence.
        why: String,
    },
    /// The disk image is being made.
    Building {
        /// Bytes of layers that have been read.
        done: u64,
        /// Bytes of layers in all.
        total: u64,
    },
    /// The disk image is there.
    Built,
    /// Something the user should know although the operation continues.
    Notice {
        /// One sentence.
        message: String,
    },
}

/// Takes progress; called from several threads, often, and must not block for long.
pub trait ProgressSink: Send + Sync {
    /// Reports one step.
    fn report(&self, progress: Progress);
}

/// Ignores all progress.
impl ProgressSink for () {
    fn report(&self, _: Progress) {}
}

impl<F: Fn(Progress) + Send + Sync> ProgressSink for F {
    fn report(&self, progress: Progress) {
        self(progress);
    }
}

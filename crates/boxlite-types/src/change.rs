//! The changes of a box to its image, and images made of boxes.

use serde::{Deserialize, Serialize};

/// How a file of a box differs from its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The image has it, and the box has it otherwise.
    Changed,
    /// The image does not have it.
    Added,
    /// The box does not have it any more.
    Deleted,
}

/// A file of a box that differs from its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// How it differs.
    pub kind: ChangeKind,
    /// Its absolute path; bytes that are not UTF-8 are replaced.
    pub path: String,
}

/// How an image is made of a box, or of an archive of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitOptions {
    /// A name for it; none when absent.
    pub name: Option<String>,
    /// The author's words, for its history.
    pub message: String,
    /// The author.
    pub author: String,
    /// Changes of its configuration, each as a line of a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`,
    /// `STOPSIGNAL`, `USER`, `VOLUME` or `WORKDIR`.
    pub changes: Vec<String>,
}

//! One image at its registry and at the registry's mirrors, which are asked first.
//!
//! # Order
//!
//! Mirrors are asked in the order of the setting `registry_mirrors`, then the registry itself. One upstream at a time is in
//! use; where it lacks something, refuses, does not answer or sends other bytes than a digest promises, a warning names
//! it, the next takes over, and it is not asked again on behalf of the same image.
//!
//! # Trust
//!
//! The first upstream that answers says what a tag means, as with any mirror. From then on the image's digest is known, and
//! every other upstream is asked for that digest. Each has credentials of its own and its own security: `insecure` means
//! the registry that was named, and a mirror is asked without TLS only if the setting says `http://`. The operator's
//! setting also lets a mirror be at a private address.

use std::sync::Arc;

use boxlite_types::{Digest, Error, ErrorKind, ProgressSink, PullOptions, Result};
use tokio::sync::Mutex;

use super::transfer::BrokenTransfer;
use super::{RegistryAccess, Repository, Upstream};
use crate::image::ingest::Ingest;
use crate::image::manifest::Descriptor;
use crate::reference::RegistryReference;

/// A repository of a registry, by way of its mirrors where it has any.
pub(crate) struct MirroredRepository {
    upstreams: Vec<Upstream>,
    access: RegistryAccess,
    progress: Arc<dyn ProgressSink>,
    current: Mutex<CurrentUpstream>,
    top: (Digest, Vec<u8>),
}

/// The upstream in use.
#[derive(Clone)]
struct CurrentUpstream {
    position: usize,
    repository: Arc<Repository>,
}

impl MirroredRepository {
    /// Finds the first upstream that has the manifest or index which `reference` names.
    pub(crate) async fn open(
        reference: &RegistryReference,
        options: &PullOptions,
        access: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let mut upstreams = access.upstreams_of(reference);
        upstreams.push(Upstream::registry(reference, options, access)?);
        Self::open_at(upstreams, access, progress).await
    }

    /// Opens the registry alone: for what a mirror must not stand in for.
    pub(crate) async fn open_unmirrored(
        reference: &RegistryReference,
        options: &PullOptions,
        access: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        Self::open_at(vec![Upstream::registry(reference, options, access)?], access, progress).await
    }

    async fn open_at(
        upstreams: Vec<Upstream>,
        access: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let first = open_first(&upstreams, 0, None, access, progress).await?;
        let top = first.repository.top();
        let current = Mutex::new(first);
        Ok(Self { upstreams, access: access.clone(), progress: Arc::clone(progress), current, top })
    }

    /// The manifest or index that the reference names.
    pub(crate) fn top(&self) -> (Digest, Vec<u8>) {
        self.top.clone()
    }

    /// The manifest or index of that digest.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Vec<u8>> {
        loop {
            let current = self.current().await;
            match current.repository.manifest(digest).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.give_up(&current, error).await?,
            }
        }
    }

    /// The config, which is a blob.
    pub(crate) async fn config(&self, config: &Descriptor) -> Result<Vec<u8>> {
        loop {
            let current = self.current().await;
            match current.repository.config(config).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.give_up(&current, error).await?,
            }
        }
    }

    /// Fetches the bytes that `ingest` lacks of a layer, so that they are those of its digest.
    ///
    /// Bytes that arrived before the last upstream became unavailable are kept for the next pull; on any other error
    /// they are removed.
    pub(crate) async fn fetch(&self, layer: &Descriptor, mut ingest: Ingest) -> Result<Ingest> {
        loop {
            let current = self.current().await;
            let others = ingest.written() > 0;
            let broken = match current.repository.fetch(layer, ingest).await {
                Ok(whole) if whole.is_right() => return Ok(whole),
                Ok(mut wrong) if others => {
                    tracing::debug!(layer = %layer.digest, "what came earlier is damaged; starting over");
                    wrong.restart()?;
                    ingest = wrong;
                    continue;
                }
                Ok(mut wrong) => {
                    let error = current.repository.wrong_blob(layer.digest);
                    wrong.restart()?;
                    BrokenTransfer { error, ingest: Some(wrong) }
                }
                Err(broken) => broken,
            };
            let unavailable = broken.error.kind() == ErrorKind::Unavailable;
            match (self.give_up(&current, broken.error).await, broken.ingest) {
                (Ok(()), Some(rest)) => ingest = rest,
                (Ok(()), None) => return Err(Error::bug("a blob was lost between two upstreams")),
                (Err(error), rest) => {
                    if let Some(rest) = rest.filter(|_| unavailable) {
                        rest.leave();
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn current(&self) -> CurrentUpstream {
        self.current.lock().await.clone()
    }

    /// Has the next upstream take over from `failed`, unless another task has seen to that.
    ///
    /// # Errors
    /// `error` when it is not the upstream's, or no other is left; the next one's when that has not got the image.
    async fn give_up(&self, failed: &CurrentUpstream, error: Error) -> Result<()> {
        let next = failed.position + 1;
        if !is_of_upstream(&error) || next == self.upstreams.len() {
            return Err(error);
        }
        let mut current = self.current.lock().await;
        if current.position == failed.position {
            self.upstreams[failed.position].warn_given_up(&error);
            *current =
                open_first(&self.upstreams, next, Some(self.top.0), &self.access, &self.progress).await?;
        }
        Ok(())
    }
}

/// Opens the first of the upstreams from `position` on that has the image, or that of the digest `pinned`.
async fn open_first(
    upstreams: &[Upstream],
    mut position: usize,
    pinned: Option<Digest>,
    access: &RegistryAccess,
    progress: &Arc<dyn ProgressSink>,
) -> Result<CurrentUpstream> {
    loop {
        let upstream = &upstreams[position];
        match Repository::open(&upstream.pinned(pinned), access, progress).await {
            Ok(repository) => return Ok(CurrentUpstream { position, repository: Arc::new(repository) }),
            Err(error) if is_of_upstream(&error) && position + 1 < upstreams.len() => {
                upstream.warn_given_up(&error);
                position += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the failure is one of an upstream, and not of this host.
fn is_of_upstream(error: &Error) -> bool {
    use ErrorKind::{Corrupt, Denied, InvalidInput, NotFound, Unavailable, Unsupported};
    matches!(error.kind(), NotFound | Denied | Unavailable | Corrupt | Unsupported | InvalidInput)
}

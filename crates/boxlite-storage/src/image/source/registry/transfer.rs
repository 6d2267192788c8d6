//! Layers: streamed to the partial blob, resumed where they broke off.

use boxlite_home::blocking;
use boxlite_types::{Error, ErrorKind, Progress, Result};
use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::Repository;
use super::failure::{self, Attempts, Trouble};
use crate::image::ingest::Ingest;
use crate::image::manifest::Descriptor;

/// How much is collected before it is hashed and written.
const BATCH: usize = 1 << 20;
/// How often a transfer may break off in all, however much arrives in between.
const BREAKS: u32 = 100;

/// A transfer that failed.
pub(super) struct BrokenTransfer {
    pub(super) error: Error,
    /// The blob with what has arrived; absent when it could not be written.
    pub(super) ingest: Option<Ingest>,
}

impl Repository {
    /// Fetches the bytes that `ingest` lacks of a layer. They are the caller's to check.
    pub(super) async fn fetch(
        &self,
        layer: &Descriptor,
        mut ingest: Ingest,
    ) -> Result<Ingest, BrokenTransfer> {
        let mut attempts = if self.is_mirror { Attempts::first() } else { Attempts::later() };
        for _ in 0..BREAKS {
            if ingest.written() == ingest.length() && ingest.length() > 0 {
                return Ok(ingest);
            }
            let before = ingest.written();
            let trouble = match self.transfer(layer, ingest).await {
                (Some(returned), None) => return Ok(returned),
                (Some(returned), Some(trouble)) => {
                    ingest = returned;
                    trouble
                }
                (None, trouble) => {
                    let error = trouble.map_or_else(|| Error::bug("a blob was lost"), Error::from);
                    return Err(BrokenTransfer { error, ingest: None });
                }
            };
            if ingest.written() > before {
                attempts.reset();
            }
            if let Err(trouble) = self.pause(&mut attempts, trouble).await {
                return Err(BrokenTransfer { error: trouble.into(), ingest: Some(ingest) });
            }
        }
        let message = format!(
            "the transfer of {} from {} broke off {BREAKS} times",
            layer.digest,
            self.reference.host()
        );
        Err(BrokenTransfer { error: Error::new(ErrorKind::Unavailable, message), ingest: Some(ingest) })
    }

    /// One request and as much of its answer as arrives; gives the blob back unless writing it failed.
    async fn transfer(&self, layer: &Descriptor, mut ingest: Ingest) -> (Option<Ingest>, Option<Trouble>) {
        let offset = ingest.written();
        let mut response = match self.get(&format!("blobs/{}", layer.digest), offset).await {
            Ok(response) => response,
            Err(trouble) => return (Some(ingest), Some(trouble)),
        };
        if offset > 0 && !continues_at(&response, offset) {
            if let Err(error) = ingest.restart() {
                return (None, Some(error.into()));
            }
            if response.status() != StatusCode::OK {
                let message = format!("{} does not resume where it is asked to", self.reference.host());
                let error = Error::new(ErrorKind::Unavailable, message);
                return (Some(ingest), Some(Trouble::Transient(error, None)));
            }
        }
        loop {
            let (batch, ended) = self.batch(&mut response).await;
            let arrived: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
            if arrived > ingest.length() - ingest.written() {
                return (Some(ingest), Some(self.too_long(layer).into()));
            }
            ingest = match blocking(move || ingest.append(&batch)).await {
                Ok(ingest) => ingest,
                Err(error) => return (None, Some(error.into())),
            };
            let (done, total) = (ingest.written(), ingest.length());
            self.progress.report(Progress::Transferring { layer: layer.digest, done, total });
            match ended {
                None => {}
                Some(Ok(())) if done < total => {
                    let message = format!(
                        "the transfer of {} from {} ended after {done} of {total} bytes",
                        layer.digest,
                        self.reference.host()
                    );
                    let error = Error::new(ErrorKind::Unavailable, message);
                    return (Some(ingest), Some(Trouble::Transient(error, None)));
                }
                Some(Ok(())) => return (Some(ingest), None),
                Some(Err(trouble)) => return (Some(ingest), Some(trouble)),
            }
        }
    }

    fn too_long(&self, layer: &Descriptor) -> Error {
        let (digest, length, host) = (layer.digest, layer.length, self.reference.host());
        Error::corrupt(format!("blob {digest} from {host} is longer than the {length} bytes announced"))
    }

    /// Collects what arrives, and says how it ended if it did.
    async fn batch(&self, response: &mut Response) -> (Vec<Bytes>, Option<Result<(), Trouble>>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    batch.push(chunk);
                }
                Ok(None) => return (batch, Some(Ok(()))),
                Err(error) => return (batch, Some(Err(failure::of_request(error, self.reference.host())))),
            }
        }
        (batch, None)
    }
}

/// Whether the answer begins at byte `offset` of the blob.
fn continues_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

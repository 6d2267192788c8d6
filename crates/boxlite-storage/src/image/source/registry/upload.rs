//! Pushing to a registry: blobs first, the manifest last.
//!
//! A blob that is there already is not sent: the registry is asked for it, and asked to mount it from another of its
//! repositories where this home has found it. Otherwise one PATCH carries all of it. After a break the registry says how
//! much has arrived and the rest follows; where it does not say, or forgets the upload, the blob is sent anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Doing, Error, ErrorCause, ErrorKind, Progress, Result};
use futures::StreamExt;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::io::AsyncSeekExt;
use tokio_util::io::ReaderStream;

use super::failure::{self, Attempts, Trouble};
use super::route::{READ_TIMEOUT, Route};
use super::{CONTENT_DIGEST, Repository, header};

/// How often the upload of one blob may break off in all.
const MAX_BREAKS: u32 = 30;
/// The longest time in which the registry takes no byte and says nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest time in which the registry takes over what has arrived.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(300);
/// How much is read from a blob at a time.
const CHUNK: usize = 256 << 10;

/// A blob to push.
#[derive(Debug)]
pub(crate) struct OutgoingBlob {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) leased: Arc<Leased>,
    /// A repository of the same registry that is said to have it.
    pub(crate) elsewhere: Option<String>,
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobPushed {
    /// It was there.
    Present,
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Sent,
}

impl Repository {
    /// Brings a blob into the repository.
    pub(crate) async fn push_blob(&self, blob: &OutgoingBlob) -> Result<BlobPushed> {
        if self.has_blob(blob.digest).await? {
            return Ok(BlobPushed::Present);
        }
        let mut attempts = Attempts::later();
        let (mut upload, mut offset) = (None, 0);
        for _ in 0..MAX_BREAKS {
            let location = if let Some(location) = upload.take() {
                location
            } else {
                offset = 0;
                match self.begin_upload(blob).await {
                    Ok(Some(location)) => location,
                    Ok(None) => return Ok(BlobPushed::Mounted),
                    Err(trouble) => {
                        self.pause(&mut attempts, trouble).await?;
                        continue;
                    }
                }
            };
            let trouble = match self.send_rest(blob, &location, offset).await {
                Ok(()) => return Ok(BlobPushed::Sent),
                Err(trouble) => trouble,
            };
            self.pause(&mut attempts, trouble).await?;
            if let Some((location, arrived)) = self.resume_point(&location, blob.length).await {
                if arrived > offset {
                    attempts.reset();
                }
                (upload, offset) = (Some(location), arrived);
            }
        }
        let message = format!(
            "the upload of {} to {} broke off {MAX_BREAKS} times",
            blob.digest,
            self.reference.host()
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Puts the manifest under the reference's tag, which makes the image visible.
    pub(crate) async fn push_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<()> {
        self.put_manifest(self.reference.tag().unwrap_or("latest"), media_type, bytes).await.map(drop)
    }

    /// Puts a manifest or index under a tag, or under its digest; returns the headers of the answer.
    pub(super) async fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<HeaderMap> {
        let url = self.route.url(&format!("/v2/{}/manifests/{name}", self.reference.repository()))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, header(media_type)?)]);
        let mut attempts = Attempts::later();
        loop {
            let body = || Ok(Body::from(bytes.to_vec()));
            let sent = self.write(Method::PUT, &url, &headers, body).await;
            let trouble = match sent {
                Ok(response) => {
                    let claimed =
                        response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
                    let digest = Digest::of(bytes);
                    return match claimed.and_then(|claimed| claimed.parse::<Digest>().ok()) {
                        Some(claimed) if claimed != digest => Err(self.wrong_bytes(digest, claimed)),
                        _ => Ok(response.headers().clone()),
                    };
                }
                Err(trouble) => trouble,
            };
            self.pause(&mut attempts, trouble).await?;
        }
    }

    async fn has_blob(&self, digest: Digest) -> Result<bool> {
        let url = self.route.url(&format!("/v2/{}/blobs/{digest}", self.reference.repository()))?;
        let mut attempts = Attempts::first();
        loop {
            let asked = self.authorized(Method::HEAD, &url, &HeaderMap::new(), || Ok(Body::default())).await;
            let trouble = match asked {
                Ok(response) if response.status().is_success() || response.status().is_redirection() => {
                    return Ok(true);
                }
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(false),
                Ok(response) => self.refusal(response).await,
                Err(trouble) => trouble,
            };
            self.pause(&mut attempts, trouble).await?;
        }
    }

    /// Begins an upload and returns where it continues; `None` when the registry had the blob elsewhere.
    async fn begin_upload(&self, blob: &OutgoingBlob) -> Result<Option<Url>, Trouble> {
        let mut url = self.route.url(&format!("/v2/{}/blobs/uploads/", self.reference.repository()))?;
        if let Some(from) = &blob.elsewhere {
            url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
        }
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let response = self.write(Method::POST, &url, &headers, || Ok(Body::default())).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            _ => self.location(&url, &response).map(Some).map_err(Trouble::from),
        }
    }

    /// Sends the blob from `offset` on, and completes the upload.
    async fn send_rest(&self, blob: &OutgoingBlob, location: &Url, offset: u64) -> Result<(), Trouble> {
        let mut location = location.clone();
        if offset < blob.length || blob.length == 0 {
            let mut headers = HeaderMap::from_iter([
                (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                (CONTENT_LENGTH, header(&(blob.length - offset).to_string())?),
            ]);
            if offset > 0 {
                headers.insert(CONTENT_RANGE, header(&format!("{offset}-{}", blob.length - 1))?);
            }
            let response = self.write_blob(&location, &headers, blob, offset).await?;
            location = self.location(&location, &response)?;
        }
        location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        self.write(Method::PUT, &location, &headers, || Ok(Body::default())).await.map(drop)
    }

    async fn write_blob(
        &self,
        location: &Url,
        headers: &HeaderMap,
        blob: &OutgoingBlob,
        offset: u64,
    ) -> Result<Response, Trouble> {
        let sent = Arc::new(AtomicU64::new(offset));
        let body = || {
            let file = blob.leased.file().try_clone().doing("reading", blob.leased.path())?;
            let (digest, total, progress) = (blob.digest, blob.length, Arc::clone(&self.progress));
            let counter = Arc::clone(&sent);
            counter.store(offset, Ordering::Relaxed);
            let chunks = async move {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                Ok::<_, std::io::Error>(ReaderStream::with_capacity(file, CHUNK))
            };
            let chunks = futures::stream::once(chunks).map(|opened| match opened {
                Ok(chunks) => chunks.left_stream(),
                Err(error) => futures::stream::once(async { Err(error) }).right_stream(),
            });
            let counted = chunks.flatten().inspect(move |chunk| {
                let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                let done = counter.fetch_add(bytes, Ordering::Relaxed) + bytes;
                progress.report(Progress::Transferring { layer: digest, done, total });
            });
            Ok(Body::wrap_stream(counted))
        };
        let writing = self.write(Method::PATCH, location, headers, body);
        let silence = async {
            let mut before = sent.load(Ordering::Relaxed);
            loop {
                tokio::time::sleep(SILENCE_TIMEOUT).await;
                let now = sent.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
            }
        };
        tokio::select! {
            response = writing => response,
            () = silence => {
                let message = format!("registry {} takes no more of {}", self.reference.host(), blob.digest);
                Err(Trouble::Transient(Error::new(ErrorKind::Unavailable, message), None))
            }
        }
    }

    /// Asks how much of an upload has arrived, and where it continues.
    async fn resume_point(&self, location: &Url, length: u64) -> Option<(Url, u64)> {
        let asked = self.authorized(Method::GET, location, &HeaderMap::new(), || Ok(Body::default())).await;
        let response = asked.ok().filter(|response| response.status() == StatusCode::NO_CONTENT)?;
        let next = self.location(location, &response).unwrap_or_else(|_| location.clone());
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let last: u64 = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse().ok()?;
        // Nothing has arrived, or one byte; the registry refuses the second if it was the other.
        let arrived = if last == 0 { 0 } else { last.checked_add(1)? };
        (arrived <= length).then_some((next, arrived))
    }

    fn location(&self, from: &Url, response: &Response) -> Result<Url> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        location.and_then(|location| from.join(location).ok()).ok_or_else(|| {
            let message =
                format!("registry {} does not say where an upload continues", self.reference.host());
            Error::new(ErrorKind::Unavailable, message)
        })
    }

    /// Sends a request that changes something, and returns its answer if that is one of success.
    async fn write(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: impl Fn() -> Result<Body>,
    ) -> Result<Response, Trouble> {
        let response = self.authorized(method, url, headers, body).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Sends a request with the authorization at hand, and once more with a fresh one if that is refused.
    async fn authorized(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: impl Fn() -> Result<Body>,
    ) -> Result<Response, Trouble> {
        let used = self.authorization.lock().await.header();
        let host = self.reference.host();
        let send = async |authorization: Option<HeaderValue>| {
            let sending = send_to(&self.route, &method, url, headers, body()?, authorization, host);
            match answer_timeout(&method) {
                Some(limit) => within(limit, host, sending).await,
                // Bounded by its caller, who sees what is taken.
                None => sending.await,
            }
        };
        let response = send(used.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.route.is_own(response.url()) {
            return Ok(response);
        }
        let fresh = {
            let mut authorization = self.authorization.lock().await;
            if authorization.header() == used {
                let challenges = response.headers().clone();
                let renewing = authorization.renew(&self.route, &challenges, &self.reference);
                within(READ_TIMEOUT, host, renewing).await?;
            }
            authorization.header()
        };
        send(fresh).await
    }

    /// Returns the meaning of an answer without success.
    async fn refusal(&self, response: Response) -> Trouble {
        let (status, headers) = (response.status(), response.headers().clone());
        let said = within(READ_TIMEOUT, self.reference.host(), self.bounded(response, 64 << 10)).await;
        let (_, body) = said.unwrap_or_default();
        let (host, name) = (self.reference.host(), self.reference.familiar());
        let said = failure::said(&body);
        let error = |kind, message: String| Error::new(kind, message);
        match status.as_u16() {
            401 | 403 => {
                let message = format!(
                    "registry {host} does not let these credentials push {name}{said}; `boxlite login {host}` gives others"
                );
                error(ErrorKind::Denied, message).about(ErrorCause::Credentials).into()
            }
            404 => {
                error(ErrorKind::NotFound, format!("registry {host} has no place for {name}{said}")).into()
            }
            405 | 501 => {
                error(ErrorKind::Unsupported, format!("registry {host} takes no images{said}")).into()
            }
            413 => error(ErrorKind::Unavailable, format!("registry {host} takes no blob of this size{said}"))
                .into(),
            // 416 and 499: what arrived and what was sent do not fit together; the upload is begun anew.
            408 | 416 | 429 | 499 | 500 | 502 | 503 | 504 => {
                let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let message = format!("registry {host} answers {status} for {name}{said}; try again later");
                Trouble::Transient(error(ErrorKind::Unavailable, message), seconds.map(Duration::from_secs))
            }
            400 if String::from_utf8_lossy(&body).contains("HTTPS") => Trouble::OtherScheme(error(
                ErrorKind::Unavailable,
                format!("registry {host} speaks HTTPS only"),
            )),
            _ => error(ErrorKind::Unavailable, format!("registry {host} answers {status} for {name}{said}"))
                .into(),
        }
    }
}

/// How long the answer to a request may take; `None` for one that carries a blob.
fn answer_timeout(method: &Method) -> Option<Duration> {
    match *method {
        Method::PATCH => None,
        // Only now may the registry hash all of the blob.
        Method::PUT => Some(COMPLETION_TIMEOUT),
        _ => Some(READ_TIMEOUT),
    }
}

/// Gives a registry up that says nothing for so long.
async fn within<T>(
    limit: Duration,
    host: &str,
    asking: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
        let message = format!("registry {host} does not answer within {} s", limit.as_secs());
        Err(Trouble::Transient(Error::new(ErrorKind::Unavailable, message), None))
    })
}

/// Sends one request without following redirects; only the registry itself gets the `authorization`.
async fn send_to(
    route: &Route,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: Body,
    authorization: Option<HeaderValue>,
    host: &str,
) -> Result<Response, Trouble> {
    let mut request =
        route.client(url)?.request(method.clone(), url.clone()).headers(headers.clone()).body(body);
    if let Some(authorization) = authorization.filter(|_| route.is_own(url)) {
        request = request.header(reqwest::header::AUTHORIZATION, authorization);
    }
    request.send().await.map_err(|error| failure::of_request(error, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_registry_is_given_up_but_while_it_takes_a_blob() {
        let asking = std::future::pending::<Result<(), Trouble>>();
        let trouble = within(Duration::from_millis(1), "registry.example", asking).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Transient(..)), "{trouble}");
        for method in [Method::HEAD, Method::GET, Method::POST, Method::PUT] {
            assert!(answer_timeout(&method).is_some(), "{method}");
        }
        assert_eq!(answer_timeout(&Method::PATCH), None);
    }
}

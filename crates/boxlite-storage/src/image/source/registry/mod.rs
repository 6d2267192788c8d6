//! Registries (OCI distribution spec 1.1), over HTTPS, and over plain HTTP on loopback or when asked.
//!
//! # Secrets
//!
//! `insecure` concerns the named registry alone: no other host is asked over plain HTTP or with an unchecked certificate.
//! HTTPS with a trusted certificate is tried first; on any other way, credentials are not sent unless that was asked for
//! as well. This host itself (`localhost`, 127.0.0.0/8, `::1`) needs no certificate. `reach` says which addresses a
//! registry may lead to.
//!
//! # Hostile registries
//!
//! Everything a registry says is bounded and checked against a digest before it is believed. Transfers that
//! break off are resumed by range where the registry allows it.

mod auth;
mod credentials;
mod failure;
mod login;
mod mirrored;
mod probe;
mod reach;
mod referrers;
mod route;
mod transfer;
mod upload;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::Authorization;
use boxlite_home::settings::RegistryMirrors;
use boxlite_types::{Digest, Error, ErrorKind, Progress, ProgressSink, PullOptions, PushOptions, Result};
use credentials::Credentials;
use failure::{Attempts, Trouble};
pub(crate) use mirrored::MirroredRepository;
pub use probe::RegistryProbe;
pub use reach::RegistryPolicy;
pub(crate) use referrers::Referrer;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use route::{READ_TIMEOUT, Route, RouteTimeouts, ways};
use tokio::sync::Mutex;
pub(crate) use upload::{BlobPushed, OutgoingBlob};
use upstream::{Upstream, api_of};

use crate::image::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, OCI_INDEX, OCI_MANIFEST,
};
use crate::reference::RegistryReference;

const CONTENT_DIGEST: &str = "docker-content-digest";

/// The operator's rules about registries.
#[derive(Debug, Clone, Default)]
pub(crate) struct RegistryAccess {
    /// Docker's configuration, with the credentials; the file that a login changes.
    pub(crate) config: Option<Arc<Path>>,
    /// Files of the same form, asked in turn where the first has nothing.
    pub(crate) further: Arc<[PathBuf]>,
    pub(crate) policy: RegistryPolicy,
    /// Where images are asked for before their registry.
    pub(crate) mirrors: Arc<RegistryMirrors>,
}

impl RegistryAccess {
    /// The credentials for the repository that `reference` names.
    async fn credentials(&self, reference: &RegistryReference) -> Result<Credentials> {
        let further = self.further.iter().map(PathBuf::as_path);
        for path in self.config.as_deref().into_iter().chain(further) {
            let found = credentials::find_in(path, reference.host(), reference.repository()).await?;
            if found != Credentials::Anonymous {
                return Ok(found);
            }
        }
        Ok(Credentials::Anonymous)
    }

    /// The mirrors of the reference's registry, the one to ask first in front.
    fn upstreams_of(&self, reference: &RegistryReference) -> Vec<Upstream> {
        self.mirrors.of(reference.host()).iter().map(|mirror| Upstream::mirror(reference, mirror)).collect()
    }

    /// Refuses to use a registry insecurely where that is not for the caller to decide.
    fn refuse_insecure(&self, host: &str) -> Result<()> {
        if self.policy.trusts(host) {
            return Ok(());
        }
        let message = format!(
            "a client may use registry {host} insecurely only if the server's operator names it (`boxlite serve \
             --allow-registry {host}`)"
        );
        Err(Error::new(ErrorKind::Denied, message))
    }
}

/// One repository of one registry.
pub(crate) struct Repository {
    route: Route,
    reference: RegistryReference,
    authorization: Mutex<Authorization>,
    progress: Arc<dyn ProgressSink>,
    top: (Digest, Vec<u8>),
    /// Another upstream comes after it.
    is_mirror: bool,
}

impl Repository {
    /// Finds out how to talk to the upstream, and fetches the manifest or index that its reference names.
    async fn open(
        upstream: &Upstream,
        access: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let reference = &upstream.reference;
        let found = access.credentials(reference).await?;
        let mut first = None;
        for security in upstream.ways {
            let (host, authority) = (reference.host(), upstream.authority());
            let route = Route::new(host, authority, *security, upstream.trusted, upstream.timeouts())?;
            let may_tell = upstream.insecure_credentials;
            let mut repository = Self::unasked(reference, route, &found, may_tell, progress);
            repository.is_mirror = upstream.is_mirror;
            match repository.fetch_top().await {
                Ok(top) => {
                    repository.top = top;
                    return Ok(repository);
                }
                Err(Trouble::Unreached(error) | Trouble::OtherScheme(error)) => {
                    first.get_or_insert(error);
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(first.unwrap_or_else(|| Error::bug("no scheme was tried")))
    }

    /// Finds out how to talk to the registry that `reference` names, in order to push there; layers may be mounted from
    /// its `repositories`.
    pub(crate) async fn open_for_push(
        reference: &RegistryReference,
        options: &PushOptions,
        access: &RegistryAccess,
        mut repositories: Vec<String>,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let host = reference.host();
        let authority = api_of(host);
        if options.insecure || options.insecure_credentials {
            access.refuse_insecure(host)?;
        }
        let found = access.credentials(reference).await?;
        repositories.sort();
        repositories.dedup();
        let mut first = None;
        for security in ways(authority, options.insecure) {
            // Its requests have bounds of their own: an answer comes only after all of a blob has been taken.
            let trusted = access.policy.trusts(host);
            let route = Route::new(host, authority, *security, trusted, RouteTimeouts::PUSH)?;
            let repository = Self::unasked(reference, route, &found, options.insecure_credentials, progress);
            repository.authorization.lock().await.will_push(&repositories);
            match repository.greet().await {
                Ok(()) => return Ok(repository),
                Err(Trouble::Unreached(error) | Trouble::OtherScheme(error)) => {
                    first.get_or_insert(error);
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(first.unwrap_or_else(|| Error::bug("no scheme was tried")))
    }

    /// Asks whether this is a registry; one that wants credentials is.
    async fn greet(&self) -> Result<(), Trouble> {
        let url = self.route.url("/v2/")?;
        let mut attempts = Attempts::first();
        loop {
            let asked = tokio::time::timeout(READ_TIMEOUT, self.send(&Method::GET, &url, 0, None)).await;
            let trouble = match asked {
                Ok(Ok(response)) if response.status() == StatusCode::UNAUTHORIZED => return Ok(()),
                Ok(Ok(response)) => match self.checked(response, "").await {
                    Ok(_) => return Ok(()),
                    Err(trouble) => trouble,
                },
                Ok(Err(trouble)) => trouble,
                Err(_) => {
                    let message = format!("registry {} does not answer", self.reference.host());
                    Trouble::Transient(Error::new(ErrorKind::Unavailable, message), None)
                }
            };
            self.pause(&mut attempts, trouble).await?;
        }
    }

    /// Whether the registry or one of its mirrors says, when it is asked once, that it has the manifest or index of `digest`.
    pub(crate) async fn has(reference: &RegistryReference, digest: Digest, access: &RegistryAccess) -> bool {
        let mut upstreams = access.upstreams_of(reference);
        upstreams.extend(Upstream::registry(reference, &PullOptions::default(), access));
        for upstream in &upstreams {
            if Self::is_at(upstream, digest, access).await {
                return true;
            }
        }
        false
    }

    async fn is_at(upstream: &Upstream, digest: Digest, access: &RegistryAccess) -> bool {
        let reference = &upstream.reference;
        let Ok(found) = access.credentials(reference).await else { return false };
        let progress: Arc<dyn ProgressSink> = Arc::new(());
        for security in upstream.ways {
            let (host, authority) = (reference.host(), upstream.authority());
            let Ok(route) = Route::new(host, authority, *security, upstream.trusted, upstream.timeouts())
            else {
                continue;
            };
            let repository = Self::unasked(reference, route, &found, false, &progress);
            match repository.request(Method::HEAD, &format!("manifests/{digest}"), 0).await {
                Ok(response) => {
                    let named = response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
                    return named.is_none_or(|named| named == digest.to_string());
                }
                Err(Trouble::Unreached(_) | Trouble::OtherScheme(_)) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// The repository by that route, of which nothing was asked yet.
    fn unasked(
        reference: &RegistryReference,
        route: Route,
        found: &Credentials,
        insecure_credentials: bool,
        progress: &Arc<dyn ProgressSink>,
    ) -> Self {
        let confidential = route.is_confidential() || insecure_credentials;
        let withheld = !confidential && *found != Credentials::Anonymous;
        let credentials = if withheld { Credentials::Anonymous } else { found.clone() };
        Self {
            route,
            reference: reference.clone(),
            authorization: Mutex::new(Authorization::new(credentials, withheld)),
            progress: Arc::clone(progress),
            top: (Digest::of(b""), Vec::new()),
            is_mirror: false,
        }
    }

    /// The manifest or index that the reference names.
    pub(crate) fn top(&self) -> (Digest, Vec<u8>) {
        self.top.clone()
    }

    async fn fetch_top(&self) -> Result<(Digest, Vec<u8>), Trouble> {
        let wanted = self.reference.digest();
        let name = match (wanted, self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let (headers, bytes) = self.document(&format!("manifests/{name}"), true).await?;
        let digest = Digest::of(&bytes);
        let claimed = headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok());
        match wanted.or(claimed) {
            Some(promised) if promised != digest => Err(self.wrong_bytes(promised, digest).into()),
            _ => Ok((digest, bytes)),
        }
    }

    /// The manifest or index of that digest.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Vec<u8>> {
        self.verified(&format!("manifests/{digest}"), digest).await
    }

    /// The config, which is a blob.
    pub(crate) async fn config(&self, config: &Descriptor) -> Result<Vec<u8>> {
        self.verified(&format!("blobs/{}", config.digest), config.digest).await
    }

    async fn verified(&self, path: &str, digest: Digest) -> Result<Vec<u8>> {
        let (_, bytes) = self.document(path, false).await?;
        let found = Digest::of(&bytes);
        if found == digest { Ok(bytes) } else { Err(self.wrong_bytes(digest, found)) }
    }

    fn wrong_bytes(&self, promised: Digest, found: Digest) -> Error {
        Error::corrupt(format!(
            "{} sent {found} for {promised}; it is damaged or lies",
            self.reference.host()
        ))
    }

    /// The failure of an upstream that sent other bytes for a blob.
    fn wrong_blob(&self, digest: Digest) -> Error {
        Error::corrupt(format!(
            "the bytes received for blob {digest} from {} are not those of the digest; it is damaged or lies",
            self.reference.host()
        ))
    }

    /// Fetches a small document, trying again when something transient goes wrong.
    async fn document(&self, path: &str, first: bool) -> Result<(HeaderMap, Vec<u8>), Trouble> {
        let mut attempts = match (self.is_mirror, first) {
            (true, _) => Attempts::at_mirror(),
            (false, true) => Attempts::first(),
            (false, false) => Attempts::later(),
        };
        loop {
            let trouble = match self.get(path, 0).await {
                Ok(response) => match self.bounded(response, DOCUMENT_LIMIT).await {
                    Ok(document) => return Ok(document),
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            self.pause(&mut attempts, trouble).await?;
        }
    }

    /// Waits before the next attempt, or says that there is none.
    async fn pause(&self, attempts: &mut Attempts, trouble: Trouble) -> Result<(), Trouble> {
        let Some(pause) = attempts.pause_after(&trouble) else { return Err(trouble) };
        self.progress.report(Progress::Retrying { why: trouble.to_string() });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends one GET from byte `offset` on.
    async fn get(&self, path: &str, offset: u64) -> Result<Response, Trouble> {
        self.request(Method::GET, path, offset).await
    }

    /// Sends one request, with a fresh authorization if the one at hand is refused.
    async fn request(&self, method: Method, path: &str, offset: u64) -> Result<Response, Trouble> {
        let url = self.route.url(&format!("/v2/{}/{path}", self.reference.repository()))?;
        let used = self.authorization.lock().await.header();
        let response = self.send(&method, &url, offset, used.as_ref()).await?;
        // Another host, which a redirect led to, is told no secret, and its challenge would choose who is told.
        if response.status() != StatusCode::UNAUTHORIZED || !self.route.is_own(response.url()) {
            return self.checked(response, path).await;
        }
        let fresh = {
            let mut authorization = self.authorization.lock().await;
            if authorization.header() == used {
                let challenges = response.headers().clone();
                authorization.renew(&self.route, &challenges, &self.reference).await?;
            }
            authorization.header()
        };
        let response = self.send(&method, &url, offset, fresh.as_ref()).await?;
        self.checked(response, path).await
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        offset: u64,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Trouble> {
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX, "*/*;q=0.1"].join(", ");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header(&accepted)?);
        if offset > 0 {
            headers.insert(RANGE, header(&format!("bytes={offset}-"))?);
        }
        self.route.send(method.clone(), url, &headers, authorization).await
    }

    async fn checked(&self, response: Response, path: &str) -> Result<Response, Trouble> {
        if response.status().is_success() || response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // The status decides; the body only adds to the message.
        let (_, body) = self.bounded(response, 64 << 10).await.unwrap_or_default();
        Err(failure::of_status(status, &headers, &body, &self.reference, path))
    }

    async fn bounded(&self, mut response: Response, limit: u64) -> Result<(HeaderMap, Vec<u8>), Trouble> {
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| failure::of_request(error, self.reference.host()))?
            else {
                return Ok((headers, bytes));
            };
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                let message = format!(
                    "{} answers with more than the {limit} bytes that such a document may have",
                    self.reference.host()
                );
                return Err(Error::corrupt(message).into());
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|error| Error::bug("a header is malformed").because(error))
}

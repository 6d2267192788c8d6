//! Registries (OCI distribution spec 1.1), over HTTPS, and over plain HTTP on loopback or when asked.
//!
//! Everything a registry says is bounded and checked against a digest before it is believed. Transfers that
//! break off are resumed by range where the registry allows it.

mod auth;
mod credentials;
mod failure;
mod transfer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use auth::Authorization;
use boxlite_types::{Digest, Error, ErrorKind, Progress, ProgressSink, PullOptions, Result};
use failure::{Attempts, Trouble};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::Mutex;

use crate::image::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, OCI_INDEX, OCI_MANIFEST,
};
use crate::reference::RegistryReference;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 5;
const CONTENT_DIGEST: &str = "docker-content-digest";
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";

/// One repository of one registry.
pub(crate) struct Repository {
    client: Client,
    reference: RegistryReference,
    /// `scheme://host[:port]`.
    base: String,
    authorization: Mutex<Authorization>,
    progress: Arc<dyn ProgressSink>,
    top: (Digest, Vec<u8>),
}

impl Repository {
    /// Finds out how to talk to the registry, and fetches the manifest or index that `reference` names.
    pub(crate) async fn open(
        reference: &RegistryReference,
        options: &PullOptions,
        config: Option<&Path>,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let host = if reference.host() == HUB { HUB_API } else { reference.host() };
        let loopback = is_loopback(host);
        let schemes: &[&str] = match (loopback, options.insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let credentials = credentials::find(config, reference.host()).await?;
        let mut first = None;
        for scheme in schemes {
            let mut repository = Self {
                client: client(loopback, loopback || options.insecure)?,
                reference: reference.clone(),
                base: format!("{scheme}://{host}"),
                authorization: Mutex::new(Authorization::new(credentials.clone())),
                progress: Arc::clone(progress),
                top: (Digest::of(b""), Vec::new()),
            };
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

    /// Fetches a small document, trying again when something transient goes wrong.
    async fn document(&self, path: &str, first: bool) -> Result<(HeaderMap, Vec<u8>), Trouble> {
        let mut attempts = if first { Attempts::first() } else { Attempts::later() };
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

    /// Sends one GET from byte `offset` on, with a fresh authorization if the one at hand is refused.
    async fn get(&self, path: &str, offset: u64) -> Result<Response, Trouble> {
        let url = format!("{}/v2/{}/{path}", self.base, self.reference.repository());
        let url = Url::parse(&url).map_err(|error| {
            Error::invalid(format!("'{}' names no registry", self.reference)).because(error)
        })?;
        let used = self.authorization.lock().await.header();
        let response = self.send(&url, offset, used.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.checked(response, path).await;
        }
        let fresh = {
            let mut authorization = self.authorization.lock().await;
            if authorization.header() == used {
                let challenges = response.headers().clone();
                authorization.renew(&self.client, &challenges, &self.reference, &self.base).await?;
            }
            authorization.header()
        };
        let response = self.send(&url, offset, fresh.as_ref()).await?;
        self.checked(response, path).await
    }

    async fn send(
        &self,
        url: &Url,
        offset: u64,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Trouble> {
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX, "*/*;q=0.1"].join(", ");
        let mut request = self.client.get(url.clone()).header(ACCEPT, accepted);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        request.send().await.map_err(|error| failure::of_request(error, self.reference.host()))
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

/// A client that follows a few redirects, and none from HTTPS to plain HTTP.
fn client(direct: bool, lenient: bool) -> Result<Client> {
    let redirects = Policy::custom(|attempt| {
        let secure = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if secure && attempt.url().scheme() != "https" {
            attempt.error("a redirect from HTTPS to plain HTTP")
        } else {
            attempt.follow()
        }
    });
    let mut builder = Client::builder()
        .user_agent(concat!("boxlite/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects)
        .danger_accept_invalid_certs(lenient);
    if direct {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| {
        let message = format!("no HTTP client can be set up: {error}");
        Error::new(ErrorKind::Unavailable, message).because(error)
    })
}

/// Whether `host[:port]` is this host and no other.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_host_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "127.0.0.1.example.com:80", "10.0.0.1", "example.com:443"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}

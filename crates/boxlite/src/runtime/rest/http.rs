//! Requests and their answers.

use std::net::IpAddr;
use std::time::Duration;

use boxlite_types::wire::{Event, ServerReadiness};
use boxlite_types::{Error, ProgressSink, Result};
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::lines::{AnswerLines, SILENCE_TIMEOUT};
use super::{RemoteOptions, failure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take for an answer that comes in one piece: it may have to measure a disk, or to wait for
/// the orderly stop of a box that is to be removed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of an answer that is held in memory.
const MAX_ANSWER: usize = 64 << 20;
/// Bytes of an error's description that are read.
const MAX_ERROR_BODY: usize = 1 << 20;

/// One server, and the connections to it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HttpClient {
    http: reqwest::Client,
    base: Url,
    keyed: bool,
}

impl HttpClient {
    pub(super) fn new(options: &RemoteOptions) -> Result<Self> {
        let base = options.base()?;
        let mut headers = HeaderMap::new();
        if let Some(value) = options.authorization()? {
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("boxlite/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // A key must not follow a redirect, and no route of ours answers with one.
            .redirect(Policy::none())
            // Would end a transfer to a living peer that takes nothing for a while; silence is noticed otherwise.
            .tcp_user_timeout(None);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            failure::unusable(base.as_str(), "no HTTP client can be set up").because(error)
        })?;
        Ok(Self { http, base, keyed: options.api_key.is_some() })
    }

    /// The server's URL, as messages name it.
    pub(super) fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request for `/v1/SEGMENTS…`; a segment may contain anything.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        self.http.request(method, url)
    }

    /// Asks whether a start would be admitted; an answer that says no is an answer.
    pub(super) async fn readiness(&self) -> Result<ServerReadiness> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("readyz");
        }
        let asking = async {
            let sent = self.http.get(url).send().await;
            let response = sent.map_err(|error| failure::of_request(error, self.server()))?;
            match response.status() {
                StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.body(response, MAX_ERROR_BODY).await,
                _ => Err(self.error_of(response).await),
            }
        };
        let body = self.within(ANSWER_TIMEOUT, asking).await?;
        serde_json::from_slice(&body).map_err(|error| failure::not_understood(self.server(), error))
    }

    pub(super) fn get(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::GET, segments)
    }

    pub(super) fn post(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::POST, segments)
    }

    /// Sends a request and returns the answer's head; a status without success becomes the error that it stands for.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| failure::of_request(error, self.server()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.error_of(response).await)
    }

    /// The error that an answer without success stands for.
    pub(super) async fn error_of(&self, response: Response) -> Error {
        let status = response.status();
        let body = timeout(SILENCE_TIMEOUT, self.body(response, MAX_ERROR_BODY)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        failure::of_status(status, &body, self.server(), self.keyed)
    }

    /// Sends a request whose answer has nothing to say but that it was done.
    pub(super) async fn done(&self, request: RequestBuilder) -> Result<()> {
        self.within(ANSWER_TIMEOUT, self.send(request)).await.map(drop)
    }

    /// Sends a request and returns the JSON of its answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = self
            .within(ANSWER_TIMEOUT, async {
                let response = self.send(request).await?;
                self.body(response, MAX_ANSWER).await
            })
            .await?;
        serde_json::from_slice(&body).map_err(|error| failure::not_understood(self.server(), error))
    }

    /// Returns the JSON of an answer whose head is there.
    pub(super) async fn parsed<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let body = self.within(ANSWER_TIMEOUT, self.body(response, MAX_ANSWER)).await?;
        serde_json::from_slice(&body).map_err(|error| failure::not_understood(self.server(), error))
    }

    /// Sends a request whose answer is a stream of lines.
    pub(super) async fn lines(&self, request: RequestBuilder) -> Result<AnswerLines> {
        let response = self.within(SILENCE_TIMEOUT, self.send(request)).await?;
        Ok(AnswerLines::of(response, self.server()))
    }

    /// Sends a request that takes its time, passes on its progress and returns its outcome.
    pub(super) async fn outcome<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        progress: &dyn ProgressSink,
    ) -> Result<T> {
        let mut lines = self.lines(request).await?;
        loop {
            match lines.next::<Event<T>>().await? {
                Some(Event::Progress(step)) => progress.report(step),
                Some(Event::Beat) => {}
                Some(Event::Done(outcome)) => return Ok(outcome),
                Some(Event::Failed(error)) => return Err(error.into_error()),
                None => return Err(failure::broken_off(self.server(), None)),
            }
        }
    }

    async fn within<T>(&self, limit: Duration, asking: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(failure::silent(self.server())),
        }
    }

    async fn body(&self, response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| failure::broken_off(self.server(), Some(&error)))?;
            if body.len() + chunk.len() > limit {
                let message =
                    format!("the server {} sent an answer of more than {limit} bytes", self.server());
                return Err(failure::unusable(self.server(), message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// A query parameter that holds JSON.
pub(super) fn as_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::bug("a request does not serialise").because(source))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

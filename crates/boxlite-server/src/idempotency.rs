//! `Idempotency-Key`: a request that is sent again under its key is answered as it was, and carried out once.
//!
//! # Meaning
//!
//! Key, caller, method, path and query together name a request. The same body gets the same answer; another body is refused with
//! 422. A request that is still being carried out is waited for. It is carried out to its end although its client has gone,
//! since that client may be back with the same key.
//!
//! # After a restart
//!
//! Answers die with the server, but what was made does not, and says by which request ([`RequestIdentity`]). A box that was
//! created or cloned has that in its record: whichever server is asked again answers with the box as it is by then, and refuses
//! another body. Of two servers that carry out the request at once, the database lets one. A command is held by its box under
//! an id that comes from its request, so to begin that again changes nothing as long as its box runs; another body is taken for
//! another request there. A pull changes nothing the second time.
//!
//! # Limits
//!
//! Answers are kept in memory for [`KEPT_FOR`], at most [`MAX_KEPT`] of them; the oldest goes first. An answer is not kept,
//! so that the request is carried out again, when it failed inside the server (5xx) or the server was restarted since. In
//! place of one that is longer than [`MAX_ANSWER_BYTES`], a conflict that says so is kept. A box answers for its request for
//! [`CreationKey::TIMEOUT`], and as long as it is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use boxlite::{BoxInfo, CreationKey, Error, ListOptions, Runtime};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::body;
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::request_id;

/// How long an answer is kept.
const KEPT_FOR: Duration = CreationKey::TIMEOUT;
/// Answers that are kept.
const MAX_KEPT: usize = 4096;
/// The longest answer that is kept, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The answers that were given to requests with a key.
#[derive(Debug, Default)]
pub(crate) struct KeptAnswers {
    by_request: Mutex<HashMap<String, KeyedRequest>>,
}

/// A request that came under a key.
#[derive(Debug, Clone)]
struct KeyedRequest {
    body: [u8; 32],
    since: Instant,
    /// Locked while the request is carried out.
    answer: Arc<tokio::sync::Mutex<Option<KeptAnswer>>>,
}

/// The identity of a request under a key, for every server of the home.
#[derive(Debug, Clone)]
pub(crate) struct RequestIdentity {
    /// Digest of caller, method, path, query and key.
    name: [u8; 32],
    /// Digest of the body.
    body: [u8; 32],
}

impl RequestIdentity {
    /// Returns an id of 128 bits for what the request makes.
    pub(crate) fn into_id(self) -> String {
        hex(&Sha256::new().chain_update(self.name).chain_update(self.body).finalize())
    }

    /// Returns what the box says that the request makes.
    pub(crate) fn creation_key(&self) -> CreationKey {
        CreationKey { request: hex(&self.name), body: hex(&self.body) }
    }
}

/// The first 128 bits of a digest.
fn hex(digest: &[u8]) -> String {
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(id).simple().to_string()
}

/// Returns the box that the request has made before, through this server or another.
///
/// # Errors
/// When it had another body then.
pub(crate) async fn made_before(
    runtime: &Runtime,
    key: Option<&CreationKey>,
) -> Result<Option<BoxInfo>, HttpFailure> {
    let Some(key) = key else { return Ok(None) };
    let boxes = runtime.list(ListOptions { all: true, filters: Vec::new() }).await?;
    of_request(boxes, key, Timestamp::now())
}

/// Picks the box that the request has made not long ago.
fn of_request(
    boxes: Vec<BoxInfo>,
    key: &CreationKey,
    now: Timestamp,
) -> Result<Option<BoxInfo>, HttpFailure> {
    let is_recent =
        |info: &BoxInfo| now.duration_since(info.created_at).unsigned_abs() < CreationKey::TIMEOUT;
    let of_same = |info: &BoxInfo| {
        info.options.creation_key.as_ref().is_some_and(|made_by| made_by.request == key.request)
    };
    match boxes.into_iter().find(|info| of_same(info) && is_recent(info)) {
        Some(info) if info.options.creation_key.as_ref() == Some(key) => Ok(Some(info)),
        Some(_) => Err(HttpFailure::other_body()),
        None => Ok(None),
    }
}

/// An answer as it was given.
#[derive(Debug, Clone)]
struct KeptAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl KeptAnswers {
    /// Returns the request under `name`, which is this one if none was there.
    ///
    /// # Errors
    /// When another body came under the same name.
    fn enter(&self, name: String, body: [u8; 32], now: Instant) -> Result<KeyedRequest, HttpFailure> {
        let mut requests = self.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|_, request| now.duration_since(request.since) < KEPT_FOR);
        if let Some(request) = requests.get(&name) {
            return if request.body == body { Ok(request.clone()) } else { Err(HttpFailure::other_body()) };
        }
        if requests.len() >= MAX_KEPT {
            let oldest = requests.iter().min_by_key(|(_, request)| request.since);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                requests.remove(&oldest);
            }
        }
        let request = KeyedRequest { body, since: now, answer: Arc::default() };
        requests.insert(name, request.clone());
        Ok(request)
    }
}

impl KeptAnswer {
    fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

/// Answers a request with a key once; requests without one pass.
pub(crate) async fn once(State(kept): State<Arc<KeptAnswers>>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    match answered(&kept, request, next).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn answered(kept: &KeptAnswers, request: Request, next: Next) -> Result<Response, HttpFailure> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &()).await?;
    let who = (caller.is_named(), caller.display_name());
    let name = format!("{who:?} {} {} {}", parts.method, parts.uri, key(&parts.headers)?);
    let body = body::whole(Request::from_parts(parts.clone(), body), &()).await?;
    let digest: [u8; 32] = Sha256::digest(&body).into();
    parts.extensions.insert(RequestIdentity { name: Sha256::digest(&name).into(), body: digest });
    let entered = kept.enter(name, digest, Instant::now())?;
    let carried_out = async move {
        let mut answer = entered.answer.lock().await;
        if let Some(given) = &*answer {
            let mut response = given.response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return response;
        }
        let (parts, body) = next.run(Request::from_parts(parts, Body::from(body))).await.into_parts();
        // These answers are JSON, made before they are sent.
        match to_bytes(body, usize::MAX).await {
            Ok(body) => {
                let given = KeptAnswer { status: parts.status, headers: parts.headers, body };
                let response = given.response();
                if given.body.len() > MAX_ANSWER_BYTES {
                    *answer = too_long().await;
                } else if !given.status.is_server_error() {
                    *answer = Some(given);
                }
                response
            }
            Err(error) => HttpFailure::from(Error::bug("an answer broke off").because(error)).into_response(),
        }
    };
    let carried_out = tokio::spawn(request_id::within_current(carried_out));
    carried_out.await.map_err(|error| Error::bug("a request was interrupted").because(error).into())
}

/// Returns what later requests are answered in place of an answer that was too long to be kept.
async fn too_long() -> Option<KeptAnswer> {
    let message = format!(
        "this request was carried out, and its answer of more than {MAX_ANSWER_BYTES} bytes was not kept"
    );
    let (parts, body) = HttpFailure::from(Error::conflict(message)).into_response().into_parts();
    let body = to_bytes(body, MAX_ANSWER_BYTES).await.ok()?;
    Some(KeptAnswer { status: parts.status, headers: parts.headers, body })
}

/// Returns the request's key.
fn key(headers: &HeaderMap) -> Result<&str, HttpFailure> {
    let mut keys = headers.get_all(KEY).into_iter();
    let key = keys.next().and_then(|key| key.to_str().ok()).unwrap_or_default();
    if keys.next().is_none() && (1..=MAX_KEY_BYTES).contains(&key.len()) {
        return Ok(key);
    }
    let message =
        format!("Idempotency-Key is given once and has 1 to {MAX_KEY_BYTES} visible ASCII characters");
    Err(Error::invalid(message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: without the removal of the oldest, more than `MAX_KEPT` stay.
    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_in_number_and_time() {
        let kept = KeptAnswers::default();
        let count = || kept.by_request.lock().unwrap().len();
        let enter = |name: &str, body: u8| kept.enter(name.to_owned(), [body; 32], Instant::now());
        for n in 0..=MAX_KEPT {
            tokio::time::advance(Duration::from_millis(1)).await;
            enter(&n.to_string(), 1).unwrap();
        }
        assert_eq!(count(), MAX_KEPT);
        assert!(enter(&MAX_KEPT.to_string(), 2).is_err(), "another body under the same key");
        enter("0", 2).unwrap();
        tokio::time::advance(KEPT_FOR).await;
        enter("late", 1).unwrap();
        assert_eq!(count(), 1);
    }
}

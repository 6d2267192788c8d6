//! Request ids: each request has one, which its answer, its error envelope and its log line carry.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: String;
}

/// Returns the id of the request that is being answered.
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Lets `task`, which is spawned apart, carry the id of the request that is being answered.
pub(crate) fn within_current<F: Future>(task: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(current().unwrap_or_default(), task)
}

/// Gives the request its id, answers it, and logs it at level `info`.
pub(crate) async fn named(request: Request, next: Next) -> Response {
    let id = chosen(request.headers()).unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let began = Instant::now();
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
    let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
    tracing::info!(%id, %method, path, status, ms, "answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// Returns the id that the client chose, if it is safe to log.
fn chosen(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let fit = (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    fit.then(|| id.to_owned())
}

//! Extractors for requests, which answer a malformed one with the same envelope as every other error.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::failure::HttpFailure;

/// The largest JSON body, in bytes.
pub(crate) const MAX_JSON_BYTES: usize = 1 << 20;
/// How long a JSON body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A JSON body that may be absent; it is then the default.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

/// The query parameters.
pub(crate) struct QueryParams<T>(pub(crate) T);

/// The variable segments of the path.
pub(crate) struct PathParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = HttpFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpFailure> {
        parse(&read(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = HttpFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpFailure> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, HttpFailure> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = whole(request, state).await?;
    let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    if !bytes.is_empty() && !kind.to_ascii_lowercase().starts_with("application/json") {
        let message = format!("the body is {kind}, and this route takes application/json");
        return Err(HttpFailure::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(bytes)
}

/// Waits for the whole body, which has at most [`MAX_JSON_BYTES`] and arrives within [`BODY_TIMEOUT`].
pub(crate) async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, HttpFailure> {
    let arriving = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
    let Ok(arrived) = arriving else {
        return Err(HttpFailure::malformed(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        ));
    };
    arrived.map_err(|rejection| {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {MAX_JSON_BYTES} bytes"),
            _ => "the body broke off".to_owned(),
        };
        HttpFailure::malformed(rejection.status(), message)
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpFailure> {
    // An array would be taken for the fields of an object in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let message = "the body is an array, and this route takes an object";
        return Err(HttpFailure::malformed(StatusCode::BAD_REQUEST, message));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        HttpFailure::malformed(
            StatusCode::BAD_REQUEST,
            format!("the body is not what this route takes: {error}"),
        )
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpFailure> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(HttpFailure::malformed(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParams<T> {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpFailure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(HttpFailure::malformed(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

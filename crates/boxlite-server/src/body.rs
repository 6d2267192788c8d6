//! Reading requests, so that a malformed one gets the same envelope as every other error.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// The most bytes that a JSON body may have.
pub(super) const MAX_JSON: usize = 1 << 20;
/// How long a JSON body may take to arrive.
const ARRIVES: Duration = Duration::from_secs(30);

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

/// A JSON body that may be left out.
pub(super) struct Optional<T>(pub(super) T);

/// The query.
pub(super) struct Query<T>(pub(super) T);

/// The variable parts of the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        parse(&read(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Optional<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let arriving = tokio::time::timeout(ARRIVES, Bytes::from_request(request, state)).await;
    let Ok(arrived) = arriving else {
        return Err(Failure::malformed(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", ARRIVES.as_secs()),
        ));
    };
    let bytes = arrived.map_err(|rejection| {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {MAX_JSON} bytes"),
            _ => "the body broke off".to_owned(),
        };
        Failure::malformed(rejection.status(), message)
    })?;
    let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    if !bytes.is_empty() && !kind.to_ascii_lowercase().starts_with("application/json") {
        let message = format!("the body is {kind}, and this route takes application/json");
        return Err(Failure::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::malformed(StatusCode::BAD_REQUEST, format!("the body is not what this route takes: {error}"))
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Failure::malformed(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(Failure::malformed(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

//! Errors as answers: the public API's envelope and status, with the library's own figures beside them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use boxlite::wire::{ErrorBody, ErrorEnvelope};
use boxlite::{Error, ErrorKind};

use crate::request_id;

/// The failure of one request.
#[derive(Debug)]
pub(crate) struct HttpFailure {
    status: StatusCode,
    name: &'static str,
    code: &'static str,
    error: Error,
    /// Seconds after which a retry makes sense.
    retry_after: Option<u32>,
}

impl HttpFailure {
    fn new(status: u16, name: &'static str, code: &'static str, error: Error) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, name, code, error, retry_after: None }
    }

    /// A malformed request, answered with a status more precise than 400.
    pub(crate) fn malformed(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, ..Self::from(Error::invalid(message)) }
    }

    /// No route has that path.
    pub(crate) fn no_route(message: impl Into<String>) -> Self {
        Error::not_found(message).into()
    }

    /// The route is there and does not take that method.
    pub(crate) fn wrong_method(message: impl Into<String>) -> Self {
        Self::new(405, "InvalidArgumentError", "method_not_allowed", Error::invalid(message))
    }

    /// A command could not be started, for this reason.
    pub(crate) fn not_started(reason: impl Into<String>) -> Self {
        Self::new(422, "ExecutionError", "execution_failed", Error::invalid(reason))
    }

    /// An `Idempotency-Key` came before, with another body.
    pub(crate) fn other_body() -> Self {
        let message =
            "this Idempotency-Key came before, with another body; give each request a key of its own";
        Self::new(422, "InvalidArgumentError", "idempotency_key_reused", Error::invalid(message))
    }

    /// The request brings no key, or a wrong one.
    pub(crate) fn unauthenticated() -> Self {
        let error = Error::new(ErrorKind::Denied, "this server wants its API key as a bearer token");
        Self::new(401, "AuthError", "unauthenticated", error)
    }

    /// The public API has something that this server lacks.
    pub(crate) fn unsupported(what: &str) -> Self {
        Error::unsupported(format!("this server does not support {what}")).into()
    }

    /// The server is at its limit, and nothing was begun.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        let error = Error::new(ErrorKind::Busy, message);
        Self {
            retry_after: Some(1),
            ..Self::new(503, "UpstreamUnavailableError", "upstream_unavailable", error)
        }
    }

    /// The box has as many of something as it may, and nothing was begun.
    pub(crate) fn too_many(code: &'static str, error: Error) -> Self {
        Self { retry_after: Some(1), ..Self::new(429, "ResourceExhaustedError", code, error) }
    }

    /// A failure to create a box: a conflict means that its name is taken, and `Unavailable` means that its registry is.
    pub(crate) fn of_create(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Conflict => Self::new(409, "AlreadyExistsError", "already_exists", error),
            ErrorKind::Unavailable => Self::of_pull(error),
            _ => error.into(),
        }
    }

    /// A failure to pull an image: what the registry lacks, denies or garbles is not this server's fault.
    pub(crate) fn of_pull(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Corrupt => {
                Self::new(422, "ImageError", "image_pull_failed", error)
            }
            _ => error.into(),
        }
    }

    /// A failure to reach a process in a box: the box stopped meanwhile.
    pub(crate) fn of_running(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => Self::new(409, "StoppedError", "stopped", error),
            _ => error.into(),
        }
    }

    /// A failure to make or unpack an archive: a damaged archive is a bad request, and too many at once may be repeated.
    pub(crate) fn of_archive(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Busy => Self {
                retry_after: Some(1),
                ..Self::new(503, "UpstreamUnavailableError", "upstream_unavailable", error)
            },
            ErrorKind::Corrupt => Self::new(400, "InvalidArgumentError", "invalid_argument", error),
            _ => Self::of_running(error),
        }
    }

    /// Returns the content of the envelope, for the request `id`.
    pub(crate) fn body(&self, id: Option<String>) -> ErrorBody {
        ErrorBody { request_id: id, ..ErrorBody::new(&self.error, self.name, self.code) }
    }
}

impl From<Error> for HttpFailure {
    fn from(error: Error) -> Self {
        let (status, name, code) = match error.kind() {
            ErrorKind::NotFound => (404, "NotFoundError", "not_found"),
            ErrorKind::Conflict | ErrorKind::Busy => (409, "InvalidStateError", "invalid_state"),
            ErrorKind::InvalidInput => (400, "InvalidArgumentError", "invalid_argument"),
            ErrorKind::ResourceExhausted => (507, "ResourceExhaustedError", "resource_exhausted"),
            ErrorKind::Denied => (403, "AuthError", "permission_denied"),
            ErrorKind::Unsupported => (400, "UnsupportedError", "unsupported"),
            ErrorKind::Unavailable | ErrorKind::Cancelled => {
                (503, "UpstreamUnavailableError", "upstream_unavailable")
            }
            ErrorKind::Corrupt | ErrorKind::Io => (500, "StorageError", "storage_error"),
            _ => (500, "InternalError", "internal"),
        };
        Self::new(status, name, code, error)
    }
}

impl IntoResponse for HttpFailure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            let (id, status) = (request_id::current(), self.status.as_u16());
            tracing::warn!(id, status, error = %self.error.chain(), "a request failed");
        }
        let body = ErrorEnvelope { error: self.body(request_id::current()) };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use boxlite::Shortage;

    use super::*;

    #[test]
    fn a_refused_start_is_507_with_its_figures_and_no_invitation_to_try_again() {
        let shortage = Shortage { need: 7, have: 5, inodes: false, reclaimable: Some(0) };
        let failure = HttpFailure::from(Error::exhausted("needs 7, has 5", shortage.clone()));
        let body = failure.body(Some("r".into()));
        assert_eq!((body.code.as_str(), body.request_id.as_deref()), ("resource_exhausted", Some("r")));
        assert_eq!(body.into_error().shortage(), Some(&shortage));
        let response = failure.into_response();
        assert_eq!(response.status().as_u16(), 507);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn what_conflicts_with_a_new_box_exists_already() {
        let status = |failure: &HttpFailure| (failure.status.as_u16(), failure.code);
        assert_eq!(status(&HttpFailure::of_create(Error::conflict("x"))), (409, "already_exists"));
        assert_eq!(status(&HttpFailure::from(Error::conflict("x"))), (409, "invalid_state"));
        assert_eq!(status(&HttpFailure::of_pull(Error::not_found("x"))), (422, "image_pull_failed"));
        assert_eq!(status(&HttpFailure::of_archive(Error::corrupt("x"))), (400, "invalid_argument"));
    }
}

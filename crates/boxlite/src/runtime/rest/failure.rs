//! Errors of a server, and errors on the way to it.

use boxlite_types::wire::ErrorEnvelope;
use boxlite_types::{Error, ErrorKind};
use reqwest::StatusCode;

/// The server at `url` could not be used at all.
pub(super) fn unusable(url: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message).of_server(url)
}

/// Sorts an error of the transport.
pub(super) fn of_request(error: reqwest::Error, url: &str) -> Error {
    let message = if error.is_connect() {
        format!("the server {url} cannot be reached")
    } else if error.is_timeout() {
        format!("the server {url} does not answer")
    } else {
        format!("the connection to the server {url} broke off")
    };
    unusable(url, message).because_deepest(error)
}

/// Nothing has come from the server for too long.
pub(super) fn silent(url: &str) -> Error {
    unusable(url, format!("the server {url} has stopped answering"))
}

/// An answer that ended in the middle.
pub(super) fn broken_off(url: &str, cause: Option<&(dyn std::error::Error + 'static)>) -> Error {
    let cause = cause.map(|cause| format!(": {}", deepest(cause))).unwrap_or_default();
    unusable(url, format!("the server {url} broke off its answer{cause}"))
}

/// An answer that is not what was asked for.
pub(super) fn not_understood(url: &str, source: serde_json::Error) -> Error {
    let message = format!("the server {url} sent an answer that this version does not understand");
    unusable(url, message).because(source)
}

/// Sorts an answer whose status is that of an error; `keyed`: whether we sent a key.
pub(super) fn of_status(status: StatusCode, body: &[u8], url: &str, keyed: bool) -> Error {
    let said = serde_json::from_slice::<ErrorEnvelope>(body).ok().map(|envelope| envelope.error);
    if status == StatusCode::UNAUTHORIZED {
        let message = if keyed {
            format!("the server {url} does not accept the API key")
        } else {
            format!("the server {url} asks for an API key")
        };
        return Error::new(ErrorKind::Denied, message).of_server(url);
    }
    match (said, status) {
        (Some(said), _) if said.detail.is_some() => said.into_error(),
        (_, StatusCode::NOT_FOUND) => foreign(url, status),
        (Some(said), _) => said.into_error().while_doing(format_args!("the server {url} says")),
        (None, status) if status.is_redirection() => foreign(url, status),
        (None, status) => unusable(url, format!("the server {url} answers with {status}")),
    }
}

/// The error for an answer of something that is not `boxlite serve`, or of one that lacks what was asked for.
pub(super) fn foreign(url: &str, status: StatusCode) -> Error {
    let message = format!(
        "what answers at {url} is no boxlite server, or one of another version: it says {status} to what every such server has"
    );
    Error::unsupported(message).of_server(url)
}

fn deepest(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

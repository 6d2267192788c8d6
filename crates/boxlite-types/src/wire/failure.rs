//! Errors on the wire: the public API's envelope, with what this library's own errors carry beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCause, ErrorKind, Shortage};

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// An error as the public API describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One sentence with the figures.
    pub message: String,
    /// The public API's name of the kind, such as `NotFoundError`.
    #[serde(rename = "type")]
    pub name: String,
    /// The code that clients decide by, such as `not_found`.
    pub code: String,
    /// The request's id, as in the header `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Details for this library's clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<ErrorDetail>,
}

/// The parts of an [`Error`] that the public API has no field for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Its kind.
    pub kind: ErrorKind,
    /// Its subject, where that decides what a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ErrorCause>,
    /// The path on the server that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The figures of a shortage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Shortage>,
}

impl From<&Error> for ErrorDetail {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            cause: error.cause(),
            path: error.path().map(ToOwned::to_owned),
            shortage: error.shortage().cloned(),
        }
    }
}

impl ErrorBody {
    /// `error` under the public name and code that the answering route has chosen for it.
    pub fn new(error: &Error, name: &str, code: &str) -> Self {
        Self {
            message: error.chain().to_string(),
            name: name.to_owned(),
            code: code.to_owned(),
            request_id: None,
            detail: Some(error.into()),
        }
    }

    /// The error that the other end met; from a server that is not ours, its kind is what `code` says.
    pub fn into_error(self) -> Error {
        let Some(detail) = self.detail else {
            return Error::new(kind_of(&self.code), self.message);
        };
        let error = match detail.shortage {
            Some(shortage) if detail.kind == ErrorKind::ResourceExhausted => {
                Error::exhausted(self.message, shortage)
            }
            _ => Error::new(detail.kind, self.message),
        };
        let error = match detail.cause {
            Some(cause) => error.about(cause),
            None => error,
        };
        match detail.path {
            Some(path) => error.at(path),
            None => error,
        }
    }
}

/// The kind behind one of the public API's codes.
fn kind_of(code: &str) -> ErrorKind {
    match code {
        "invalid_argument" => ErrorKind::InvalidInput,
        "unsupported" => ErrorKind::Unsupported,
        "unauthenticated" | "permission_denied" => ErrorKind::Denied,
        "not_found" | "session_reaped" => ErrorKind::NotFound,
        "already_exists" | "invalid_state" | "stopped" => ErrorKind::Conflict,
        "resource_exhausted" => ErrorKind::ResourceExhausted,
        "storage_error" | "database_error" | "metadata_error" => ErrorKind::Io,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_after_the_journey() {
        let shortage = Shortage { need: 1 << 30, have: 5, inodes: false, reclaimable: Some(7) };
        let error =
            Error::exhausted("the disk is full", shortage.clone()).about(ErrorCause::Port).at("/home/x");
        let body = ErrorBody::new(&error, "ResourceExhaustedError", "resource_exhausted");
        let json = serde_json::to_string(&ErrorEnvelope { error: body }).unwrap();
        let back = serde_json::from_str::<ErrorEnvelope>(&json).unwrap().error.into_error();
        assert_eq!(back.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(back.shortage(), Some(&shortage));
        assert_eq!(back.path(), error.path());
        assert_eq!(back.to_string(), error.to_string());
    }

    #[test]
    fn a_foreign_servers_error_keeps_its_kind() {
        let json = r#"{"error":{"message":"no","type":"NotFoundError","code":"not_found"}}"#;
        let error = serde_json::from_str::<ErrorEnvelope>(json).unwrap().error.into_error();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "no"));
    }
}

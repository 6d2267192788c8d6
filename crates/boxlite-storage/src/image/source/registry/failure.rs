//! Failures of a registry, and whether to try again.

use std::fmt;
use std::time::Duration;

use boxlite_types::{Error, ErrorCause, ErrorKind};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::reach::PrivateAddress;
use crate::reference::RegistryReference;

/// The longest pause that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A failed request.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The registry was not reached at all.
    Unreached(Error),
    /// The registry speaks the other of HTTP and HTTPS.
    OtherScheme(Error),
    /// It may work a moment later, or after as long as the registry says.
    Transient(Error, Option<Duration>),
    /// It will not work by trying again.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreached(error)
            | Trouble::OtherScheme(error)
            | Trouble::Transient(error, _)
            | Trouble::Final(error) => error,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(error)
            | Self::OtherScheme(error)
            | Self::Transient(error, _)
            | Self::Final(error) => error.fmt(f),
        }
    }
}

/// How often something is tried in a row.
#[derive(Debug)]
pub(super) struct Attempts {
    failed: u32,
    limit: u32,
}

impl Attempts {
    /// For the first request, where a registry that cannot be reached is most likely not there.
    pub(super) fn first() -> Self {
        Self { failed: 0, limit: 3 }
    }

    /// For a mirror, after which another upstream can be asked.
    pub(super) fn at_mirror() -> Self {
        Self { failed: 0, limit: 1 }
    }

    /// For a registry that has answered before.
    pub(super) fn later() -> Self {
        Self { failed: 0, limit: 6 }
    }

    /// Forgets earlier failures, since there was progress.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// How long to wait after this trouble; `None` when it is of no use.
    pub(super) fn pause_after(&mut self, trouble: &Trouble) -> Option<Duration> {
        let asked = match trouble {
            Trouble::Final(_) | Trouble::OtherScheme(_) => return None,
            Trouble::Unreached(_) => None,
            Trouble::Transient(_, asked) => *asked,
        };
        self.failed += 1;
        if self.failed >= self.limit {
            return None;
        }
        let backoff = FIRST_PAUSE * 2_u32.pow(self.failed - 1);
        let jitter = backoff.mul_f64(rand::random_range(0.0..0.25));
        Some(asked.unwrap_or_default().max(backoff + jitter).min(LONGEST_PAUSE))
    }
}

/// Sorts an error of the transport.
pub(super) fn of_request(error: reqwest::Error, host: &str) -> Trouble {
    let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message);
    if let Some(refused) = private_address(&error) {
        return Error::from(refused).into();
    }
    if error.is_builder() {
        return Error::invalid(format!("'{host}' names no registry")).because_deepest(error).into();
    }
    if error.is_connect() || (error.is_timeout() && error.is_request()) {
        let message = unreached(&error, host);
        return Trouble::Unreached(unavailable(message).because_deepest(error));
    }
    Trouble::Transient(
        unavailable(format!("the transfer from {host} broke off")).because_deepest(error),
        None,
    )
}

/// Says why a registry cannot be reached. Two common causes are known by their words alone, in which the transport hides them.
fn unreached(error: &reqwest::Error, host: &str) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    let says = |words: &str| causes.iter().any(|cause| cause.contains(words));
    if says("InvalidContentType") {
        return format!("registry {host} answers in plain HTTP and not in HTTPS; --insecure allows that");
    }
    if says("dns error") {
        return format!(
            "registry {host} is not known under that name; check the name, the network and HTTPS_PROXY, or use an image on \
             this host (oci:DIR)"
        );
    }
    format!(
        "registry {host} cannot be reached; check the network, the host's name and HTTPS_PROXY, use --insecure if it has no \
         certificate, or an image on this host (oci:DIR)"
    )
}

/// Returns the private address that the request was not sent to, if that is its failure.
fn private_address(error: &reqwest::Error) -> Option<PrivateAddress> {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.into_iter().find_map(|cause| cause.downcast_ref::<PrivateAddress>().cloned())
}

/// Sorts an answer that is not the one hoped for.
pub(super) fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    reference: &RegistryReference,
    path: &str,
) -> Trouble {
    let (host, name) = (reference.host(), reference.familiar());
    let said = said(body);
    let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message);
    match status.as_u16() {
        401 => Error::new(
            ErrorKind::Denied,
            format!(
                "{host} does not let these credentials pull {name}{said}; it may not exist, or need `boxlite login {host}`"
            ),
        )
        .about(ErrorCause::Credentials)
        .into(),
        403 => Error::new(ErrorKind::Denied, format!("{host} refuses to hand out {name}{said}"))
            .about(ErrorCause::Credentials)
            .into(),
        404 if path.starts_with("referrers/") => {
            Error::not_found(format!("registry {host} lists no referrers{said}")).into()
        }
        404 if path.starts_with("manifests/") => {
            Error::not_found(format!("registry {host} has no image {name}{said}")).into()
        }
        404 if path.is_empty() => {
            unavailable(format!("{host} does not answer as a registry does{said}")).into()
        }
        404 => unavailable(format!("registry {host} lacks a part of {name} ({path}){said}")).into(),
        400 if String::from_utf8_lossy(body).contains("HTTPS") => {
            Trouble::OtherScheme(unavailable(format!("registry {host} speaks HTTPS only")))
        }
        408 | 429 | 500 | 502 | 503 | 504 => {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let message = format!("registry {host} answers {status} for {name}{said}; try again later");
            Trouble::Transient(unavailable(message), seconds.map(Duration::from_secs))
        }
        _ => unavailable(format!("registry {host} answers {status} for {name}{said}")).into(),
    }
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
}

/// The registry's own message in brackets, harmless to print; empty when there is none.
pub(super) fn said(body: &[u8]) -> String {
    let Ok(Envelope { errors }) = serde_json::from_slice(body) else { return String::new() };
    let Some(first) = errors.into_iter().map(|said| said.message).find(|text| !text.is_empty()) else {
        return String::new();
    };
    let clean: String = first.chars().filter(|character| !character.is_control()).take(200).collect();
    format!(" (\"{clean}\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient(after: Option<u64>) -> Trouble {
        Trouble::Transient(Error::new(ErrorKind::Unavailable, "x"), after.map(Duration::from_secs))
    }

    #[test]
    fn pauses_grow_follow_the_registry_and_end() {
        let mut attempts = Attempts::later();
        let pauses: Vec<Duration> =
            std::iter::from_fn(|| attempts.pause_after(&transient(None))).take(10).collect();
        assert_eq!(pauses.len(), 5);
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
        let mut attempts = Attempts::later();
        assert_eq!(attempts.pause_after(&transient(Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(attempts.pause_after(&transient(Some(7_000))), Some(LONGEST_PAUSE));
        assert_eq!(attempts.pause_after(&Trouble::Final(Error::bug("x"))), None);
    }

    #[test]
    fn answers_have_stable_kinds() {
        let reference = RegistryReference::parse("ghcr.io/a/b:1").unwrap();
        let kind = |status: u16, path: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let trouble = of_status(status, &HeaderMap::new(), b"", &reference, path);
            let again = matches!(trouble, Trouble::Transient(..));
            (Error::from(trouble).kind(), again)
        };
        assert_eq!(kind(401, "manifests/1"), (ErrorKind::Denied, false));
        assert_eq!(kind(403, "manifests/1"), (ErrorKind::Denied, false));
        assert_eq!(kind(404, "manifests/1"), (ErrorKind::NotFound, false));
        assert_eq!(kind(404, "blobs/x"), (ErrorKind::Unavailable, false));
        assert_eq!(kind(418, "manifests/1"), (ErrorKind::Unavailable, false));
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(kind(status, "blobs/x"), (ErrorKind::Unavailable, true), "{status}");
        }
    }

    #[test]
    fn what_a_registry_says_is_quoted_without_control_characters() {
        assert_eq!(said(br#"{"errors":[{"code":"X","message":"no \u001b[31mway"}]}"#), " (\"no [31mway\")");
        assert_eq!(said(b"<html>"), "");
    }
}

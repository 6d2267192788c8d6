//! Authentication: requests that bring the key or, on a server without one, requests of this host's own programs.
//!
//! A browser counts as a program of this host, but the pages that it shows do not: see [`foreign`].

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use boxlite::{Digest, Error, ErrorKind, Result};
use subtle::ConstantTimeEq;

use crate::caller::Caller;
use crate::connections::ConnectionPermit;
use crate::failure::HttpFailure;
use crate::keys::KeysFile;
use crate::{page, watched};

/// The longest key file that is read, in bytes.
const MAX_KEY_BYTES: u64 = 4096;

/// The key that requests must bring.
pub(crate) struct ApiKey(Vec<u8>);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// Reads the key from its file, ignoring white space around it.
    ///
    /// # Errors
    /// `Denied` when others than owner and group may read the file, `InvalidInput` when it holds no key.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let examining = |error| Error::io("reading the API key from", path, error);
        watched::refuse_open_to_all(path, "the API key")?;
        let metadata = std::fs::metadata(path).map_err(examining)?;
        if metadata.len() > MAX_KEY_BYTES {
            let message = format!(
                "{} has {} bytes, and an API key at most {MAX_KEY_BYTES}",
                path.display(),
                metadata.len()
            );
            return Err(Error::invalid(message).at(path));
        }
        let text = std::fs::read_to_string(path).map_err(examining)?;
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!("{} holds no API key: one line of visible ASCII", path.display());
            return Err(Error::invalid(message).at(path));
        }
        Ok(Self(key.as_bytes().to_vec()))
    }

    /// Tells whether this is the key, in a time that does not depend on how a wrong key looks.
    fn is(&self, brought: &[u8]) -> bool {
        bool::from(self.0.ct_eq(brought))
    }
}

/// Returns the key that a request brings.
fn brought(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The check that every request passes before its route.
#[derive(Debug)]
pub(crate) struct AuthGate {
    key: Option<ApiKey>,
    named: Option<KeysFile>,
}

impl AuthGate {
    /// Admits requests that bring `key` or one of `named`; without either, requests of this host's own programs.
    pub(crate) fn new(key: Option<ApiKey>, named: Option<KeysFile>) -> Self {
        Self { key, named }
    }

    /// Tells whether requests must bring a key.
    pub(crate) fn needs_key(&self) -> bool {
        self.key.is_some() || self.named.is_some()
    }

    /// Tells whether somebody who was granted something may still use it: a key of the keys file only while it is there.
    pub(crate) fn still_has(&self, grantee: Option<&Digest>) -> bool {
        grantee.is_none_or(|hash| self.named.as_ref().is_some_and(|named| named.has(hash)))
    }

    /// Reads the file of keys again if it has changed; blocks.
    pub(crate) fn refresh(&self) {
        if let Some(named) = &self.named {
            named.refresh();
        }
    }

    /// Returns who sends the request, or why it is refused.
    fn caller(&self, request: &Request) -> std::result::Result<Caller, HttpFailure> {
        if brings_token(request) || is_page(request) {
            return Ok(Caller::Anyone);
        }
        if !self.needs_key() {
            return match foreign(request.headers()) {
                Some(why) => Err(Error::new(ErrorKind::Denied, why).into()),
                None => Ok(Caller::Local),
            };
        }
        let key = brought(request.headers());
        let operator = key.is_some_and(|key| self.key.as_ref().is_some_and(|own| own.is(key)));
        let named = key.and_then(|key| self.named.as_ref()?.find(key));
        match named {
            _ if operator => Ok(Caller::Operator),
            Some(key) => Ok(Caller::Named(key)),
            None if is_open(request) => Ok(Caller::Anyone),
            None => Err(HttpFailure::unauthenticated()),
        }
    }
}

/// Lets a request pass, or answers 401 or 403; and 503 when too many connections have brought the key.
pub(crate) async fn admitted(
    State(gate): State<Arc<AuthGate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match gate.caller(&request) {
        Ok(caller) => caller,
        Err(failure) => return failure.into_response(),
    };
    let permit = request.extensions().get::<Arc<ConnectionPermit>>();
    // A token alone proves nothing yet.
    let proves = !is_open(&request) && !brings_token(&request);
    if proves && permit.is_some_and(|permit| !permit.prove()) {
        return HttpFailure::overloaded("this server has its most connections; try again").into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Tells whether the request is answered without a key.
fn is_open(request: &Request) -> bool {
    matches!(request.uri().path(), "/v1/config" | "/healthz" | "/readyz") || is_page(request)
}

/// Tells whether the request asks for a file of the page, which is the same for everybody and tells nothing of this host.
fn is_page(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && page::is_file(request.uri().path())
}

/// Tells whether the request brings the token of a tunnel, which its route judges. No page can make a browser send one.
fn brings_token(request: &Request) -> bool {
    request.method() == Method::CONNECT && request.uri().path().starts_with("/v1/tunnels/")
}

/// Returns why a request to a server without a key may come from a web page. The page's browser is a program of this
/// host, but the request names another origin, or reached us by a foreign name that resolves to this host.
fn foreign(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Some(format!("this server has no API key and answers only to localhost, not to {host:?}"));
    }
    let origin = text(header::ORIGIN)
        .filter(|origin| ["http", "https"].iter().all(|scheme| *origin != format!("{scheme}://{host}")));
    let site = headers.get("sec-fetch-site").filter(|site| *site != "same-origin" && *site != "none");
    (origin.is_some() || site.is_some())
        .then(|| "this server has no API key and does not answer other sites' pages".to_owned())
}

/// Tells whether `HOST[:PORT]` names this host by a name that cannot be pointed elsewhere.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key = ApiKey(b"secret-1".to_vec());
        let admits = |value: &str| {
            brought(&headers(&[("authorization", value)])).is_some_and(|brought| key.is(brought))
        };
        assert!(admits("Bearer secret-1") && admits("bearer secret-1"));
        for wrong in
            ["Bearer secret-", "Bearer secret-12", "secret-1", "Basic secret-1", "Bearer ", "", "Bearer"]
        {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(brought(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let read = |text: &str, mode: u32| {
            let path = scratch.path().join("key");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            ApiKey::read(&path).map_err(|error| error.kind())
        };
        assert!(read("abc\n", 0o600).is_ok() && read("abc", 0o640).is_ok());
        assert_eq!(read("abc", 0o644).unwrap_err(), ErrorKind::Denied);
        for none in ["", " \n", "a\nb", "ä", &"x".repeat(5000)] {
            assert_eq!(read(none, 0o600).unwrap_err(), ErrorKind::InvalidInput, "{none}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for own in [
            &[("host", "127.0.0.1:8100")][..],
            &[("host", "localhost")],
            &[("host", "[::1]:8100")],
            &[("host", "localhost:8100"), ("origin", "http://localhost:8100")],
            &[("host", "localhost:8100"), ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(foreign(&headers(own)), None, "{own:?}");
        }
        for page in [
            &[][..],
            &[("host", "rebound.example:8100")],
            &[("host", "127.0.0.1.example:8100")],
            &[("host", "192.168.0.7:8100")],
            &[("host", "localhost:8100"), ("origin", "https://evil.example")],
            &[("host", "localhost:8100"), ("origin", "null")],
            &[("host", "localhost:8100"), ("origin", "http://localhost:3000")],
            &[("host", "localhost:8100"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:8100"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(foreign(&headers(page)).is_some(), "{page:?}");
        }
    }
}

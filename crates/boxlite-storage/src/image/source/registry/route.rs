//! The way to one registry: scheme, certificate check, and which other hosts it may lead to.

use std::sync::Arc;
use std::time::Duration;

use boxlite_types::{Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, Url};

use super::failure::{self, Trouble};
use super::reach::{Reach, ReachResolver};

/// The longest silence within an answer.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// How long a registry is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteTimeouts {
    connect: Duration,
    /// The longest silence within an answer, unless the caller bounds that.
    read: Option<Duration>,
}

impl RouteTimeouts {
    pub(super) const FETCH: Self = Self { connect: Duration::from_secs(15), read: Some(READ_TIMEOUT) };
    /// An answer comes only after all of a blob has been taken, so its requests have bounds of their own.
    pub(super) const PUSH: Self = Self { read: None, ..Self::FETCH };
    /// Another upstream can serve as well; but a mirror may have to fetch first what it is asked for.
    pub(super) const MIRROR: Self =
        Self { connect: Duration::from_secs(5), read: Some(Duration::from_secs(15)) };
}

/// How a registry is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// HTTPS, with a certificate that this host trusts.
    Verified,
    /// HTTPS, with whatever certificate.
    Unverified,
    /// Plain HTTP.
    Plain,
}

/// The way to one registry.
#[derive(Debug)]
pub(super) struct Route {
    /// `scheme://host[:port]`.
    base: Url,
    security: Security,
    reach: Arc<Reach>,
    /// For every host.
    strict: Client,
    /// For the registry alone, where its certificate does not count.
    lenient: Option<Client>,
    /// The registry's name in messages.
    host: String,
}

impl Route {
    /// The way to the registry at `authority`, which messages call `host`.
    ///
    /// # Errors
    /// `InvalidInput` when it names no host, `Denied` when it is out of reach.
    pub(super) fn new(
        host: &str,
        authority: &str,
        security: Security,
        trusted: bool,
        timeouts: RouteTimeouts,
    ) -> Result<Self> {
        let scheme = if security == Security::Plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{authority}"))
            .map_err(|error| Error::invalid(format!("'{host}' names no registry")).because(error))?;
        let reach = Arc::new(Reach::new(&base, trusted));
        reach.check(&base)?;
        let direct = is_loopback(&base);
        let strict = client(&reach, direct, false, timeouts)?;
        let lenient =
            (security == Security::Unverified).then(|| client(&reach, direct, true, timeouts)).transpose()?;
        Ok(Self { base, security, reach, strict, lenient, host: host.to_owned() })
    }

    /// Tells whether secrets may be sent to the registry: nobody in between can read them.
    pub(super) fn is_confidential(&self) -> bool {
        self.security == Security::Verified || is_loopback(&self.base)
    }

    /// Tells whether the URL is the registry's own.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Returns the URL of `path` at the registry.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|error| {
            Error::invalid(format!("'{}/{path}' is not the URL of a registry", self.host)).because(error)
        })
    }

    /// Sends a GET or HEAD and follows its redirects. Only the host of `url` itself gets the `authorization`.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Trouble> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client(&at)?.request(method.clone(), at.clone()).headers(headers.clone());
            if let Some(authorization) = authorization.filter(|_| at.origin() == url.origin()) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| failure::of_request(error, &self.host))?;
            match self.redirect(&at, &response)? {
                Some(next) => at = next,
                None => return Ok(response),
            }
        }
        Err(self.not_followed("more than once too often").into())
    }

    /// Returns the client for a request to `url`.
    ///
    /// # Errors
    /// `Denied` when the URL is out of reach, or without TLS although the registry is not on the same host.
    pub(super) fn client(&self, url: &Url) -> Result<&Client> {
        let plain_here = self.security == Security::Plain
            && (url.host_str() == self.base.host_str() || is_loopback(url) && is_loopback(&self.base));
        match url.scheme() {
            "https" => {}
            "http" if plain_here => {}
            _ => {
                let message = format!(
                    "registry {} refers to {url}, which is without TLS; nothing was sent to it",
                    self.host
                );
                return Err(Error::new(ErrorKind::Denied, message));
            }
        }
        self.reach.check(url)?;
        let own = url.origin() == self.base.origin() || is_loopback(url) && is_loopback(&self.base);
        Ok(self.lenient.as_ref().filter(|_| own).unwrap_or(&self.strict))
    }

    /// Returns where the response redirects to, if it does.
    fn redirect(&self, from: &Url, response: &Response) -> Result<Option<Url>> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        next.map(Some).ok_or_else(|| self.not_followed("without saying where to"))
    }

    fn not_followed(&self, how: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("registry {} redirects {how}", self.host))
    }
}

fn client(reach: &Arc<Reach>, direct: bool, lenient: bool, timeouts: RouteTimeouts) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("boxlite/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .redirect(Policy::none())
        .dns_resolver(Arc::new(ReachResolver(Arc::clone(reach))))
        .danger_accept_invalid_certs(lenient);
    if let Some(read_timeout) = timeouts.read {
        builder = builder.read_timeout(read_timeout);
    }
    if direct {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| {
        let message = format!("no HTTP client can be set up: {error}");
        Error::new(ErrorKind::Unavailable, message).because(error)
    })
}

/// The ways to the registry at `authority`, best first.
pub(super) fn ways(authority: &str, insecure: bool) -> &'static [Security] {
    let loopback = Url::parse(&format!("http://{authority}")).is_ok_and(|url| is_loopback(&url));
    match (loopback, insecure) {
        (true, _) => &[Security::Plain, Security::Unverified],
        (false, true) => &[Security::Verified, Security::Unverified, Security::Plain],
        (false, false) => &[Security::Verified],
    }
}

/// Whether the URL names this host and no other.
pub(super) fn is_loopback(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_loopback() {
        let loopback = |host: &str| is_loopback(&Url::parse(&format!("http://{host}")).unwrap());
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "127.0.0.1.example.com:80", "10.0.0.1", "example.com:443"] {
            assert!(!loopback(host), "{host}");
        }
    }

    /// Mutation tried: with the lenient client for every host, a token server's certificate does not count.
    #[test]
    fn a_registry_is_insecure_for_itself_alone() {
        let url = |text: &str| Url::parse(text).unwrap();
        let route = |security| {
            Route::new("203.0.113.5:5000", "203.0.113.5:5000", security, true, RouteTimeouts::PUSH).unwrap()
        };
        let unverified = route(Security::Unverified);
        let lenient = |text: &str| {
            std::ptr::eq(unverified.client(&url(text)).unwrap(), unverified.lenient.as_ref().unwrap())
        };
        assert!(lenient("https://203.0.113.5:5000/v2/"));
        assert!(!lenient("https://203.0.113.5/token") && !lenient("https://auth.example/token"));
        assert_eq!(
            unverified.client(&url("http://203.0.113.5:5000/")).unwrap_err().kind(),
            ErrorKind::Denied
        );
        let plain = route(Security::Plain);
        assert!(plain.client(&url("http://203.0.113.5:5001/token")).is_ok());
        assert_eq!(plain.client(&url("http://auth.example/token")).unwrap_err().kind(), ErrorKind::Denied);
        let confidential = [Security::Verified, Security::Unverified, Security::Plain]
            .map(|security| route(security).is_confidential());
        assert_eq!(confidential, [true, false, false]);
    }
}

//! Answers to a registry's challenge: basic credentials, or a token from its token server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boxlite_types::{Error, ErrorCause, ErrorKind, Result};
use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::credentials::Credentials;
use super::failure::{self, Trouble};
use super::route::Route;
use crate::reference::RegistryReference;

/// The most bytes a token server's answer may have.
const TOKEN_LIMIT: usize = 1 << 20;

/// The authorization that each request to one repository carries.
#[derive(Debug)]
pub(super) struct Authorization {
    credentials: Credentials,
    /// There are others, which the way to the registry is not good enough for.
    withheld: bool,
    header: Option<HeaderValue>,
    /// Actions that a token must allow on the repository, where the registry does not say.
    actions: &'static str,
    /// Further scopes that it should allow.
    further_scopes: Vec<String>,
}

/// A challenge that can be answered.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Authorization {
    pub(super) fn new(credentials: Credentials, withheld: bool) -> Self {
        let header = match &credentials {
            Credentials::Registry { token } => bearer(token).ok(),
            _ => None,
        };
        Self { credentials, withheld, header, actions: "pull", further_scopes: Vec::new() }
    }

    /// Asks from now on for the right to push, and to take blobs from other `repositories`.
    pub(super) fn will_push(&mut self, repositories: &[String]) {
        self.actions = "pull,push";
        self.further_scopes = repositories.iter().map(|name| format!("repository:{name}:pull")).collect();
    }

    /// Asks from now on for a token that proves who asks, and allows nothing.
    pub(super) fn will_only_log_in(&mut self) {
        self.actions = "";
    }

    /// The header for a registry that has asked for nothing.
    pub(super) fn basic_header(&self) -> Result<Option<HeaderValue>> {
        match &self.credentials {
            Credentials::Basic { user, password } => basic(user, password).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether there are credentials which the way to the registry is not good enough for.
    pub(super) fn withholds(&self) -> bool {
        self.withheld
    }

    /// The header to send now, if any.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        self.header.clone()
    }

    /// Answers the challenge in `headers`.
    ///
    /// # Errors
    /// `Denied` when there is no answer or it is refused.
    pub(super) async fn renew(
        &mut self,
        route: &Route,
        headers: &HeaderMap,
        reference: &RegistryReference,
    ) -> Result<(), Trouble> {
        let host = reference.host();
        let denied = |message: String| {
            Trouble::Final(Error::new(ErrorKind::Denied, message).about(ErrorCause::Credentials))
        };
        self.header = match (challenge(headers), &self.credentials) {
            (Some(Challenge::Basic), Credentials::Basic { user, password }) => Some(basic(user, password)?),
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                let realm = token_url(&realm, host)?;
                let own = || match self.actions {
                    "" => String::new(),
                    actions => format!("repository:{}:{actions}", reference.repository()),
                };
                let mut scopes = vec![scope.unwrap_or_else(own)];
                scopes.retain(|scope| !scope.is_empty());
                scopes.extend(self.further_scopes.iter().cloned());
                let asked = Asked { realm, service, scopes };
                Some(
                    fetch_token(route, asked, credentials, reference)
                        .await
                        .map_err(|trouble| self.told(trouble, host))?,
                )
            }
            _ if self.withheld => return Err(denied(withheld(host))),
            _ => {
                return Err(denied(format!(
                    "registry {host} wants credentials for {}, and there are none; run `boxlite login {host}`",
                    reference.familiar()
                )));
            }
        };
        Ok(())
    }

    /// Adds to a refusal that there are credentials which were not sent.
    fn told(&self, trouble: Trouble, host: &str) -> Trouble {
        match trouble {
            Trouble::Final(error) if self.withheld && error.kind() == ErrorKind::Denied => Trouble::Final(
                Error::new(ErrorKind::Denied, withheld(host)).about(ErrorCause::Credentials).because(error),
            ),
            other => other,
        }
    }
}

fn withheld(host: &str) -> String {
    format!(
        "registry {host} wants credentials, and they are not sent over a connection without TLS or without a trusted \
         certificate; --insecure-credentials sends them"
    )
}

struct Asked {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

/// Where to ask for a token.
fn token_url(realm: &str, host: &str) -> Result<Url> {
    let url = Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| {
        let message = format!("registry {host} names no usable token server ('{realm}')");
        Error::new(ErrorKind::Unavailable, message)
    })
}

async fn fetch_token(
    route: &Route,
    asked: Asked,
    credentials: &Credentials,
    reference: &RegistryReference,
) -> Result<HeaderValue, Trouble> {
    let host = reference.host();
    let mut url = asked.realm;
    let service = asked.service.unwrap_or_default();
    let broken = |error| failure::of_request(error, host);
    let mut response = if let Credentials::Identity { token } = credentials {
        let mut form = url.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "boxlite")
            .append_pair("service", &service)
            .append_pair("scope", &asked.scopes.join(" "))
            .append_pair("refresh_token", token);
        let form_type = "application/x-www-form-urlencoded";
        let body = form.query().unwrap_or_default().to_owned();
        let request = route.client(&url)?.post(url).header(reqwest::header::CONTENT_TYPE, form_type);
        request.body(body).send().await.map_err(broken)?
    } else {
        if !service.is_empty() {
            url.query_pairs_mut().append_pair("service", &service);
        }
        for scope in &asked.scopes {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        let authorization = match credentials {
            Credentials::Basic { user, password } => Some(basic(user, password)?),
            _ => None,
        };
        route.send(Method::GET, &url, &HeaderMap::new(), authorization.as_ref()).await?
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > TOKEN_LIMIT {
            let message = format!("the token server of {host} answers with more than {TOKEN_LIMIT} bytes");
            return Err(Error::corrupt(message).into());
        }
        body.extend_from_slice(&chunk);
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
        let message = format!("{host} does not accept the credentials at hand; run `boxlite login {host}`");
        return Err(Error::new(ErrorKind::Denied, message).about(ErrorCause::Credentials).into());
    }
    if !status.is_success() {
        return Err(failure::of_status(status, &headers, &body, reference, "token"));
    }
    let token: Option<Token> = serde_json::from_slice(&body).ok();
    let token = token.map(|found| if found.token.is_empty() { found.access_token } else { found.token });
    match token {
        Some(token) if !token.is_empty() => Ok(bearer(&token)?),
        _ => {
            let message = format!("the token server of {host} answers without a token");
            Err(Error::new(ErrorKind::Unavailable, message).into())
        }
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::corrupt("the token or password holds characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The best challenge in `headers` that can be answered.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in ChallengeParser::new(text).map_while(Result::ok) {
            match answerable(&challenge) {
                Some(bearer @ Challenge::Bearer { .. }) => return Some(bearer),
                Some(Challenge::Basic) => found = Some(Challenge::Basic),
                None => {}
            }
        }
    }
    found
}

fn answerable(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |wanted: &str| {
        let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_unescaped())
    };
    Some(Challenge::Bearer {
        realm: parameter("realm")?,
        service: parameter("service"),
        scope: parameter("scope"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(text))]))
    }

    #[test]
    fn challenges_are_read_and_tokens_preferred() {
        assert_eq!(of("Basic realm=\"x\""), Some(Challenge::Basic));
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("registry, the".to_owned()),
            scope: Some("repository:a/b:pull".to_owned()),
        };
        let text = "Bearer realm=\"https://auth.example/token\",service=\"registry, the\",scope=\"repository:a/b:pull\"";
        assert_eq!(of(text), Some(expected));
        assert!(matches!(of("Basic realm=\"x\", Bearer realm=\"y\""), Some(Challenge::Bearer { .. })));
        assert_eq!(of("Negotiate"), None);
        assert_eq!(of("=;garbage"), None);
    }

    #[test]
    fn a_token_server_speaks_http() {
        assert!(token_url("https://auth.example/t", "r").is_ok());
        assert!(token_url("file:///etc/passwd", "r").is_err());
    }
}

//! The server of a remote runtime, and the key for it.

use std::fmt;

use boxlite_types::{Error, Result};
use reqwest::Url;
use reqwest::header::HeaderValue;

/// Names a server that runs `boxlite serve`, and the key for it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RemoteOptions {
    /// `http://HOST[:PORT]` or `https://…`; what follows is put before the API's own paths, for a server behind a proxy.
    pub url: String,
    /// The API key, if the server asks for one.
    pub api_key: Option<String>,
}

/// Without the key.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.api_key.as_ref().map(|_| "…");
        f.debug_struct("RemoteOptions").field("url", &self.url).field("api_key", &key).finish()
    }
}

impl RemoteOptions {
    /// The URL that requests are built on.
    pub(super) fn base(&self) -> Result<Url> {
        let text = self.url.as_str();
        let url = Url::parse(text)
            .map_err(|why| Error::invalid(format!("'{text}' is not a server's URL: {why}")).because(why))?;
        let invalid = |why: &str| Err(Error::invalid(format!("'{text}' is not a server's URL: {why}")));
        match url.scheme() {
            "http" | "https" => {}
            other => return invalid(&format!("it begins with {other}: and not with http:// or https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("a server's URL holds no user and no password; it takes an API key"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("it has a query or a fragment");
        }
        Ok(url)
    }

    /// The header that carries the key.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some(key) = &self.api_key else { return Ok(None) };
        if key.is_empty() {
            return Err(Error::invalid("the API key is empty"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|source| {
            Error::invalid("the API key contains a line break or another control character").because(source)
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

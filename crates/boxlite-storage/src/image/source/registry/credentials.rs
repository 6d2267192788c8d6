//! Credentials as `boxlite login`, `docker login` and `podman login` leave them: in `config.json`, in `auth.json` or with
//! a credential helper.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boxlite_types::{Error, ErrorCause, ErrorKind, Result};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The name of Docker Hub in Docker's configuration.
const HUB_KEY: &str = "https://index.docker.io/v1/";
pub(super) const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// The credentials that a registry may be told.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// A refresh token for the registry's token server.
    Identity {
        token: String,
    },
    /// A token for the registry itself.
    Registry {
        token: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic",
            Self::Identity { .. } => "Identity",
            Self::Registry { .. } => "Registry",
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, CredentialEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CredentialEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The key of the registry `host` in these files.
pub(super) fn server_key(host: &str) -> &str {
    if host == "docker.io" { HUB_KEY } else { host }
}

/// Whether the key of an entry means all of the registry `host`.
pub(super) fn is_of_host(key: &str, host: &str) -> bool {
    matching(key, host, "") == Some(0)
}

/// How specific the key of an entry is for a repository, if it means that at all: Podman's keys may name a part of a
/// registry, `host/name`, and Docker's are hosts or URLs.
fn matching(key: &str, host: &str, repository: &str) -> Option<usize> {
    let (url, rest) = key.split_once("://").map_or((false, key), |(_, rest)| (true, rest));
    let (found, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_host =
        found == host || (host == "docker.io" && matches!(found, "index.docker.io" | "registry-1.docker.io"));
    let path = if url || matches!(path, "v1/" | "v2/") { "" } else { path.trim_end_matches('/') };
    let below = || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (is_host && (path.is_empty() || below())).then_some(path.len())
}

/// Finds the credentials for a repository of the registry `host` in the configuration file at `path`, if there is one.
pub(super) async fn find_in(path: &Path, host: &str, repository: &str) -> Result<Credentials> {
    let text = match tokio::fs::read(path).await {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Credentials::Anonymous);
        }
        Err(error) => return Err(Error::io("reading Docker's configuration", path, error)),
    };
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        Error::invalid(format!("Docker's configuration {} is malformed", path.display()))
            .at(path)
            .because(error)
    })?;
    let helper = config
        .cred_helpers
        .iter()
        .find_map(|(key, helper)| is_of_host(key, host).then_some(helper))
        .or(config.creds_store.as_ref())
        .filter(|helper| !helper.is_empty());
    if let Some(helper) = helper
        && let Some(credentials) = ask_helper(helper, server_key(host)).await?
    {
        return Ok(credentials);
    }
    let entries = config.auths.into_iter();
    let fitting = entries.filter_map(|(key, entry)| Some((matching(&key, host, repository)?, entry)));
    match fitting.max_by_key(|(specific, _)| *specific) {
        Some((_, entry)) => entry.credentials().ok_or_else(|| {
            let message = format!(
                "the entry for {host} in {} is malformed: run `boxlite login {host}`",
                path.display()
            );
            Error::invalid(message).at(path)
        }),
        None => Ok(Credentials::Anonymous),
    }
}

impl CredentialEntry {
    /// `None` when what it holds cannot be decoded.
    fn credentials(self) -> Option<Credentials> {
        let text = |value: Option<String>| value.filter(|value| !value.is_empty());
        if let Some(token) = text(self.registrytoken) {
            return Some(Credentials::Registry { token });
        }
        if let Some(token) = text(self.identitytoken) {
            return Some(Credentials::Identity { token });
        }
        if let Some(auth) = text(self.auth) {
            let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (user, password) = decoded.split_once(':')?;
            let password = password.trim_end_matches('\0').to_owned();
            return Some(Credentials::Basic { user: user.to_owned(), password });
        }
        Some(match (text(self.username), text(self.password)) {
            (Some(user), Some(password)) => Credentials::Basic { user, password },
            _ => Credentials::Anonymous,
        })
    }
}

/// Refuses a helper's name that would be a path.
pub(super) fn check_helper(helper: &str) -> Result<()> {
    if helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Ok(());
    }
    Err(Error::invalid(format!("'{helper}' in Docker's configuration is not a credential helper's name")))
}

/// Asks `docker-credential-<helper>`; `None` when it knows nothing of the registry.
async fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let denied = |message: String| Error::new(ErrorKind::Denied, message).about(ErrorCause::Credentials);
    check_helper(helper)?;
    let program = format!("docker-credential-{helper}");
    let run = async {
        let mut child = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not want to know the server has its reasons; its answer decides.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(HELPER_TIMEOUT, run).await {
        Err(_) => {
            let seconds = HELPER_TIMEOUT.as_secs();
            return Err(denied(format!("{program} did not answer for {server} within {seconds} seconds")));
        }
        Ok(Err(error)) => return Err(denied(format!("{program} cannot be run")).because(error)),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        return Ok(None);
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
        .map_err(|error| denied(format!("{program} gives no usable answer for {server}: {error}")))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, token) => Some(Credentials::Identity { token }),
        (user, password) => Some(Credentials::Basic { user: user.to_owned(), password }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn in_config(text: &str, host: &str) -> Result<Credentials> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        find_in(&path, host, "a/b").await
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[tokio::test]
    async fn entries_are_found_by_host_however_they_are_written() {
        let auth = STANDARD.encode("me:se:cret");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "host:5000": {{"username": "a", "password": "b"}},
                "https://ghcr.io": {{"identitytoken": "t"}}, "empty": {{}}, "broken": {{"auth": "%"}}}}}}"#
        );
        assert_eq!(in_config(&config, "docker.io").await.unwrap(), basic("me", "se:cret"));
        assert_eq!(in_config(&config, "host:5000").await.unwrap(), basic("a", "b"));
        assert_eq!(
            in_config(&config, "ghcr.io").await.unwrap(),
            Credentials::Identity { token: "t".to_owned() }
        );
        assert_eq!(in_config(&config, "host").await.unwrap(), Credentials::Anonymous);
        assert_eq!(in_config(&config, "empty").await.unwrap(), Credentials::Anonymous);
        assert_eq!(in_config(&config, "broken").await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(in_config("{", "x").await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(find_in(Path::new("/nonexistent/x"), "x", "a").await.unwrap(), Credentials::Anonymous);
    }

    /// Mutation tried: with the shortest key instead of the longest, the first line fails.
    #[tokio::test]
    async fn the_most_specific_key_counts_as_in_podmans_file() {
        let entry = |user: &str| format!(r#"{{"auth": "{}"}}"#, STANDARD.encode(format!("{user}:p")));
        let (all, some, other) = (entry("all"), entry("some"), entry("other"));
        let config = format!(
            r#"{{"auths": {{"x.io": {all}, "x.io/a": {some}, "x.io/ab": {other}, "y.io/other": {other}}}}}"#
        );
        assert_eq!(in_config(&config, "x.io").await.unwrap(), basic("some", "p"));
        assert_eq!(in_config(&config, "y.io").await.unwrap(), Credentials::Anonymous);
        let hub = format!(r#"{{"auths": {{"docker.io": {all}}}}}"#);
        assert_eq!(in_config(&hub, "docker.io").await.unwrap(), basic("all", "p"));
    }

    #[tokio::test]
    async fn helpers_have_plain_names_and_exist() {
        let hostile = r#"{"credsStore": "../../bin/sh"}"#;
        assert_eq!(in_config(hostile, "x").await.unwrap_err().kind(), ErrorKind::InvalidInput);
        let absent = r#"{"credHelpers": {"x": "boxlite-test-absent"}}"#;
        let error = in_config(absent, "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.chain().to_string().contains("docker-credential-boxlite-test-absent"), "{error}");
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", basic("me", "secret")), "Basic");
    }
}

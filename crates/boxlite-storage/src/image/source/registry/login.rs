//! Logging in and out: credentials are checked against their registry, then kept where Docker keeps its own.
//!
//! # Crash safety
//! The file is replaced as a whole, under a lock on its directory, so that two logins at once lose neither. All else that
//! it says stays. Only its owner can read it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boxlite_home::{blocking, durable};
use boxlite_types::{Doing, Error, ErrorCause, ErrorKind, Login, Logout, Result};
use reqwest::Method;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::credentials::{self, Credentials, HELPER_TIMEOUT, server_key};
use super::failure::Trouble;
use super::route::{Route, RouteTimeouts, ways};
use super::upstream::{HUB, HUB_API, api_of};
use super::{RegistryAccess, Repository};
use crate::reference::RegistryReference;

impl RegistryAccess {
    /// Checks the credentials against their registry, and keeps them.
    ///
    /// # Errors
    /// `Denied` when the registry refuses them; `Unavailable` when it cannot be reached; nothing is kept then.
    pub(crate) async fn login(&self, login: &Login) -> Result<PathBuf> {
        let host = checked_host(&login.registry)?;
        if login.user.is_empty() || login.user.contains(':') || login.password.is_empty() {
            let message = "a user name is not empty and has no colon in it, and a password is not empty";
            return Err(Error::invalid(message));
        }
        let path = self.file()?;
        self.verify(&host, login).await?;
        let (user, password, kept) = (login.user.clone(), login.password.clone(), path.clone());
        blocking(move || {
            change(&path, |config| {
                if let Some(helper) = helper_for(config, &host) {
                    let told =
                        json!({ "ServerURL": server_key(&host), "Username": user, "Secret": password });
                    tell_helper(&helper, "store", &told.to_string())?;
                    entries(config)?.insert(server_key(&host).to_owned(), json!({}));
                } else {
                    let auth = STANDARD.encode(format!("{user}:{password}"));
                    let known = entries(config)?;
                    known.retain(|key, _| !credentials::is_of_host(key, &host));
                    known.insert(server_key(&host).to_owned(), json!({ "auth": auth }));
                }
                Ok(true)
            })
        })
        .await?;
        Ok(kept)
    }

    /// Forgets the credentials for a registry, and leaves those that other programs keep.
    pub(crate) async fn logout(&self, registry: &str) -> Result<Logout> {
        let host = checked_host(registry)?;
        let was_logged_in = self.forget(host.clone()).await?;
        let mut still_in = None;
        for file in self.further.iter() {
            // A file that cannot be read is the next pull's trouble.
            let found = credentials::find_in(file, &host, "").await;
            if still_in.is_none() && found.is_ok_and(|found| found != Credentials::Anonymous) {
                still_in = Some(file.clone());
            }
        }
        Ok(Logout { was_logged_in, still_in })
    }

    /// Says whether there was anything to forget.
    async fn forget(&self, host: String) -> Result<bool> {
        let path = self.file()?;
        blocking(move || {
            if !path.exists() {
                return Ok(false);
            }
            change(&path, |config| {
                let mut changed = false;
                if let Some(helper) = helper_for(config, &host) {
                    // It says so where it knows nothing of the registry.
                    changed |= tell_helper(&helper, "erase", server_key(&host)).is_ok();
                }
                if config.get("auths").is_some_and(Value::is_object) {
                    let known = entries(config)?;
                    let before = known.len();
                    known.retain(|key, _| !credentials::is_of_host(key, &host));
                    changed |= known.len() < before;
                }
                Ok(changed)
            })
        })
        .await
    }

    fn file(&self) -> Result<PathBuf> {
        self.config.as_deref().map(Path::to_owned).ok_or_else(|| {
            Error::invalid("there is no file to keep credentials in: neither HOME nor DOCKER_CONFIG is set")
        })
    }

    /// Asks the registry whether it lets these credentials in.
    async fn verify(&self, host: &str, login: &Login) -> Result<()> {
        if login.insecure {
            self.refuse_insecure(host)?;
        }
        let authority = api_of(host);
        let reference = RegistryReference::parse(&format!("{host}/login"))?;
        let found = Credentials::Basic { user: login.user.clone(), password: login.password.clone() };
        let mut first = None;
        for security in ways(authority, login.insecure) {
            let route =
                Route::new(host, authority, *security, self.policy.trusts(host), RouteTimeouts::FETCH)?;
            let progress: std::sync::Arc<dyn boxlite_types::ProgressSink> = std::sync::Arc::new(());
            let repository = Repository::unasked(&reference, route, &found, login.insecure, &progress);
            repository.authorization.lock().await.will_only_log_in();
            match repository.accepts_credentials().await {
                Ok(()) => return Ok(()),
                Err(Trouble::Unreached(error) | Trouble::OtherScheme(error)) => {
                    first.get_or_insert(error);
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(first.unwrap_or_else(|| Error::bug("no scheme was tried")))
    }
}

impl Repository {
    async fn accepts_credentials(&self) -> Result<(), Trouble> {
        let url = self.route.url("/v2/")?;
        let host = self.reference.host();
        let refused = |message: String| Error::new(ErrorKind::Denied, message).about(ErrorCause::Credentials);
        let mut response = self.send(&Method::GET, &url, 0, None).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            // It lets everybody in, and may judge credentials all the same.
            self.checked(response, "").await?;
            let told = self.authorization.lock().await.basic_header()?;
            response = self.send(&Method::GET, &url, 0, told.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.checked(response, "").await.map(drop);
            }
        }
        if !self.route.is_own(response.url()) {
            let message = format!("registry {host} leaves the question who asks to {}", response.url());
            return Err(refused(message).into());
        }
        let mut authorization = self.authorization.lock().await;
        let renewed = authorization.renew(&self.route, response.headers(), &self.reference).await;
        renewed.map_err(|trouble| match trouble {
            Trouble::Final(error) if error.kind() == ErrorKind::Denied && !authorization.withholds() => {
                refused(format!("registry {host} does not accept this user name and password"))
                    .because(error)
                    .into()
            }
            other => other,
        })?;
        let response = self.send(&Method::GET, &url, 0, authorization.header().as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(
                refused(format!("registry {host} does not accept this user name and password")).into()
            );
        }
        self.checked(response, "").await.map(drop)
    }
}

/// The host of a registry as users write it: `registry.example:5000`, perhaps with a scheme.
fn checked_host(registry: &str) -> Result<String> {
    let bare = registry.split_once("://").map_or(registry, |(_, rest)| rest).trim_end_matches('/');
    let host =
        if matches!(bare, "" | "index.docker.io" | "index.docker.io/v1" | HUB_API) { HUB } else { bare };
    let wrong = || Error::invalid(format!("'{registry}' names no registry; write HOST[:PORT]"));
    if host.contains('/') {
        return Err(wrong());
    }
    let reference = RegistryReference::parse(&format!("{host}/login")).map_err(|_| wrong())?;
    if reference.host() == host { Ok(host.to_owned()) } else { Err(wrong()) }
}

/// Changes the configuration at `path` as `edit` says, which tells whether there is anything to write.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> Result<bool>) -> Result<bool> {
    // A link stays one.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durable::ensure_dir(directory)?;
    let lock = File::open(directory).doing("opening", directory)?;
    lock.lock().doing("locking", directory)?;
    let mut config = match std::fs::read(path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Map::new(),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{} is malformed; correct it or move it away", path.display());
            Error::invalid(message).at(path).because(error)
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(Error::io("reading the credentials", path, error)),
    };
    if !edit(&mut config)? {
        return Ok(false);
    }
    let mut text = serde_json::to_vec_pretty(&Value::Object(config))
        .map_err(|error| Error::bug("the credentials do not serialise").because(error))?;
    text.push(b'\n');
    durable::write_atomically(directory, path, &text)?;
    Ok(true)
}

fn entries(config: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let found = config.entry("auths").or_insert_with(|| json!({}));
    found
        .as_object_mut()
        .ok_or_else(|| Error::invalid("`auths` in the file with the credentials is not an object"))
}

/// The credential helper that the configuration names for the registry.
fn helper_for(config: &Map<String, Value>, host: &str) -> Option<String> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| helpers.iter().find(|(key, _)| credentials::is_of_host(key, host)));
    let named = own.map(|(_, helper)| helper).or_else(|| config.get("credsStore"));
    named.and_then(Value::as_str).filter(|helper| !helper.is_empty()).map(str::to_owned)
}

/// Lets `docker-credential-<helper>` carry out `verb`.
fn tell_helper(helper: &str, verb: &str, input: &str) -> Result<()> {
    use std::process::{Command, Stdio};
    credentials::check_helper(helper)?;
    let program = format!("docker-credential-{helper}");
    let denied = |message: String| Error::new(ErrorKind::Denied, message).about(ErrorCause::Credentials);
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| denied(format!("{program} cannot be run")).because(error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Its exit status decides.
        let _ = stdin.write_all(input.as_bytes());
    }
    let until = std::time::Instant::now() + HELPER_TIMEOUT;
    loop {
        match child.try_wait().doing("waiting for", &program)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(denied(format!("{program} {verb} failed ({status})"))),
            None if std::time::Instant::now() > until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(denied(format!(
                    "{program} did not end within {} seconds",
                    HELPER_TIMEOUT.as_secs()
                )));
            }
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn registries_are_named_as_users_write_them() {
        for (written, meant) in [
            ("localhost:5000", "localhost:5000"),
            ("https://ghcr.io/", "ghcr.io"),
            ("docker.io", "docker.io"),
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            assert_eq!(checked_host(written).unwrap(), meant, "{written}");
        }
        for wrong in ["a/b", "web", "host:port", "x y", "host.example:99999", "-"] {
            assert_eq!(checked_host(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }

    /// Mutation tried: without the lock, changes that are made at once lose each other.
    #[test]
    fn a_change_keeps_all_else_and_is_private() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("new/config.json");
        let put = |key: &str, value: Value| {
            change(&path, |config| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                config.insert(key.to_owned(), value);
                Ok(true)
            })
            .unwrap();
        };
        put("psFormat", json!("table"));
        std::thread::scope(|scope| {
            for at in 0..8 {
                let put = &put;
                scope.spawn(move || put(&format!("key{at}"), json!(at)));
            }
        });
        let read: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read.len(), 9, "{read:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(change(&path, |_| Ok(true)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(std::fs::read(&path).unwrap(), b"{", "a file that is not understood stays as it is");
    }
}

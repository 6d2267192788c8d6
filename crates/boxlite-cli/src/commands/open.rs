//! The runtime that the global options name.

use std::path::Path;

use boxlite::{Accel, RemoteOptions, Runtime, RuntimeOptions};

use super::host_env;
use crate::args::{Acceleration, GlobalArgs};
use crate::report::{Failure, Topic};

/// Opens the runtime: on the server that `--url` or, unless a home is named, the environment names; else on a home of
/// this host.
pub(super) fn runtime(global: &GlobalArgs) -> Result<Runtime, Failure> {
    match server(global, host_env("BOXLITE_REST_URL"))? {
        Some(url) => remote(url, api_key(global)?),
        None if global.api_key_file.is_some() => {
            Err(Failure::local("--api-key-file is of no use without a server")
                .hint("--url or BOXLITE_REST_URL name one"))
        }
        None => local(global),
    }
}

/// Opens the runtime on a home of this host.
pub(super) fn local(global: &GlobalArgs) -> Result<Runtime, Failure> {
    let accel = match global.accel.unwrap_or_default() {
        Acceleration::Auto => Accel::Auto,
        Acceleration::Kvm => Accel::Kvm,
        Acceleration::Tcg => Accel::Tcg,
    };
    let options = RuntimeOptions { home: global.home.clone(), accel, ..RuntimeOptions::default() };
    Runtime::local(options).map_err(|error| Failure::of(&error, Topic::Host))
}

fn remote(url: String, api_key: Option<String>) -> Result<Runtime, Failure> {
    Runtime::remote(&RemoteOptions { url, api_key }).map_err(|error| Failure::of(&error, Topic::Host))
}

/// The URL of the server to ask; `variable` is what the environment says.
fn server(global: &GlobalArgs, variable: Option<String>) -> Result<Option<String>, Failure> {
    let local = match (&global.home, global.accel) {
        (Some(_), _) => Some("--home"),
        (None, Some(_)) => Some("--accel"),
        (None, None) => None,
    };
    match (&global.url, local) {
        (Some(_), Some(option)) => Err(Failure::local(format!("--url and {option} contradict each other"))
            .hint(format!("{option} is about this host; leave one of them out"))),
        (Some(url), None) => Ok(Some(url.clone())),
        // What was typed counts for more than what is set.
        (None, Some(_)) => Ok(None),
        (None, None) => Ok(variable.filter(|url| !url.is_empty())),
    }
}

/// The key for the server: from the file, else from the environment.
pub(super) fn api_key(global: &GlobalArgs) -> Result<Option<String>, Failure> {
    match &global.api_key_file {
        Some(file) => key_in(file).map(Some),
        None => Ok(host_env("BOXLITE_API_KEY").filter(|key| !key.is_empty())),
    }
}

/// The key is the file's text without the white space around it.
fn key_in(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::local(format!("reading the API key {} failed: {error}", file.display())))?;
    match text.trim() {
        "" => Err(Failure::local(format!("the API key file {} is empty", file.display()))),
        key => Ok(key.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(url: Option<&str>, home: Option<&str>, accel: Option<Acceleration>) -> GlobalArgs {
        let (url, home) = (url.map(Into::into), home.map(Into::into));
        GlobalArgs { home, accel, url, api_key_file: None, debug: false }
    }

    #[test]
    fn what_was_typed_says_which_runtime_is_meant() {
        let chosen = |global: GlobalArgs, variable: Option<&str>| server(&global, variable.map(Into::into));
        let typed = global(Some("http://a"), None, None);
        assert_eq!(chosen(typed, Some("http://b")).unwrap().as_deref(), Some("http://a"));
        let nothing = || global(None, None, None);
        assert_eq!(chosen(nothing(), Some("http://b")).unwrap().as_deref(), Some("http://b"));
        assert_eq!(chosen(nothing(), Some("")).unwrap(), None);
        assert_eq!(chosen(global(None, Some("/h"), None), Some("http://b")).unwrap(), None);
        assert_eq!(chosen(global(None, None, Some(Acceleration::Tcg)), Some("http://b")).unwrap(), None);
        for (option, both) in [
            ("--home", global(Some("http://a"), Some("/h"), None)),
            ("--accel", global(Some("http://a"), None, Some(Acceleration::Kvm))),
        ] {
            assert!(chosen(both, None).unwrap_err().to_string().contains(option));
        }
    }
}

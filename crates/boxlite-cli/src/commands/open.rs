//! The runtime that the global options and the environment name.

use std::net::IpAddr;

use boxlite::{Accel, MissingHome, NodeCheck, RegistryPolicy, Runtime, RuntimeOptions};

use super::servers::{ServerKeys, servers};
use crate::args::{AccelArg, GlobalArgs};
use crate::environment::Environment;
use crate::report::{CommandFailure, Topic, note};

/// Opens the runtime: of the server that `--url` or, without `--home` and `--accel`, the environment names; otherwise of a
/// home of this host.
pub(super) fn runtime(
    global: &GlobalArgs,
    environment: &Environment,
    missing_home: MissingHome,
) -> Result<Runtime, CommandFailure> {
    match server(global, environment.rest_url())? {
        Some(text) => {
            let servers = servers(&text, &server_keys(global, environment)?)?;
            for server in &servers {
                if server.api_key.is_some() && is_readable_on_the_way(&server.url) {
                    note(&format!(
                        "boxlite: warning: the API key goes to {} over plain HTTP, where whoever is on the way can read it",
                        server.url
                    ));
                }
            }
            Runtime::fleet(&servers).map_err(|error| CommandFailure::of(&error, Topic::Host))
        }
        None if global.api_key_file.is_some() => {
            Err(CommandFailure::local("--api-key-file has no effect without a server")
                .hint("--url or BOXLITE_REST_URL name one"))
        }
        None => local(global, environment, missing_home),
    }
}

/// Tells whether [`runtime`] is that of a server.
pub(super) fn names_server(global: &GlobalArgs, environment: &Environment) -> Result<bool, CommandFailure> {
    Ok(server(global, environment.rest_url())?.is_some())
}

/// Opens the runtime of a home of this host whose boxes end with this process.
pub(super) fn tied(global: &GlobalArgs, environment: &Environment) -> Result<Runtime, CommandFailure> {
    open(RuntimeOptions { tied: true, ..options(global, environment)? })
}

/// Measures this host as a node, without opening the database of its home.
pub(super) fn node(global: &GlobalArgs, environment: &Environment) -> Result<NodeCheck, CommandFailure> {
    let options = RuntimeOptions { missing_home: MissingHome::Refuse, ..options(global, environment)? };
    boxlite::measure_node(&options).map_err(|error| CommandFailure::of(&error, Topic::Host))
}

/// Opens the runtime of a home of this host.
fn local(
    global: &GlobalArgs,
    environment: &Environment,
    missing_home: MissingHome,
) -> Result<Runtime, CommandFailure> {
    open(RuntimeOptions { missing_home, ..options(global, environment)? })
}

/// Opens the runtime that a server's clients use: `registries` are the private and insecure ones that they may pull from.
pub(super) fn served(
    global: &GlobalArgs,
    environment: &Environment,
    registries: Vec<String>,
    pool: Option<u64>,
    traces: Option<String>,
) -> Result<Runtime, CommandFailure> {
    let registries = RegistryPolicy::PublicAnd(registries);
    let mut options = RuntimeOptions { registries, traces, ..options(global, environment)? };
    options.settings.pool = pool.or(options.settings.pool);
    open(options)
}

fn options(global: &GlobalArgs, environment: &Environment) -> Result<RuntimeOptions, CommandFailure> {
    let accel = match global.accel.unwrap_or_default() {
        AccelArg::Auto => Accel::Auto,
        AccelArg::Kvm => Accel::Kvm,
        AccelArg::Tcg => Accel::Tcg,
    };
    environment.runtime_options(global.home.clone(), accel)
}

fn open(options: RuntimeOptions) -> Result<Runtime, CommandFailure> {
    Runtime::local(options).map_err(|error| CommandFailure::of(&error, Topic::Host))
}

/// Tells whether requests to this URL leave the host unencrypted.
fn is_readable_on_the_way(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let here = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    scheme.eq_ignore_ascii_case("http") && !here
}

/// Returns the URL of the server to use; `variable` is what the environment names.
fn server(global: &GlobalArgs, variable: Option<String>) -> Result<Option<String>, CommandFailure> {
    let local = match (&global.home, global.accel) {
        (Some(_), _) => Some("--home"),
        (None, Some(_)) => Some("--accel"),
        (None, None) => None,
    };
    match (&global.url, local) {
        (Some(_), Some(option)) => {
            Err(CommandFailure::local(format!("--url and {option} contradict each other"))
                .hint(format!("{option} is about this host; leave one of them out")))
        }
        (Some(url), None) => Ok(Some(url.clone())),
        // Options override the environment.
        (None, Some(_)) => Ok(None),
        (None, None) => Ok(variable),
    }
}

/// Returns the keys for the servers: from the file, else from the environment, which has one for all.
fn server_keys(global: &GlobalArgs, environment: &Environment) -> Result<ServerKeys, CommandFailure> {
    match &global.api_key_file {
        Some(file) => ServerKeys::read(file),
        None => Ok(environment.api_key().map_or(ServerKeys::None, ServerKeys::One)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(url: Option<&str>, home: Option<&str>, accel: Option<AccelArg>) -> GlobalArgs {
        let (url, home) = (url.map(Into::into), home.map(Into::into));
        GlobalArgs { home, accel, url, api_key_file: None, debug: false }
    }

    #[test]
    fn a_key_is_read_on_the_way_over_plain_http_to_another_host() {
        for open in [
            "http://10.0.0.1:8100",
            "HTTP://server.example/x",
            "http://[2001:db8::1]:8100",
            "http://127.0.0.1.example",
        ] {
            assert!(is_readable_on_the_way(open), "{open}");
        }
        for closed in ["https://10.0.0.1", "http://127.0.0.1:8100", "http://localhost", "http://[::1]:8100/"]
        {
            assert!(!is_readable_on_the_way(closed), "{closed}");
        }
    }

    #[test]
    fn options_override_the_environment() {
        let chosen = |global: GlobalArgs, variable: Option<&str>| server(&global, variable.map(Into::into));
        let typed = global(Some("http://a"), None, None);
        assert_eq!(chosen(typed, Some("http://b")).unwrap().as_deref(), Some("http://a"));
        let nothing = || global(None, None, None);
        assert_eq!(chosen(nothing(), Some("http://b")).unwrap().as_deref(), Some("http://b"));
        assert_eq!(chosen(nothing(), None).unwrap(), None);
        assert_eq!(chosen(global(None, Some("/h"), None), Some("http://b")).unwrap(), None);
        assert_eq!(chosen(global(None, None, Some(AccelArg::Tcg)), Some("http://b")).unwrap(), None);
        for (option, both) in [
            ("--home", global(Some("http://a"), Some("/h"), None)),
            ("--accel", global(Some("http://a"), None, Some(AccelArg::Kvm))),
        ] {
            assert!(chosen(both, None).unwrap_err().to_string().contains(option));
        }
    }
}

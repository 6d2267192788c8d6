//! The user's environment, read once and passed on as plain options.
//!
//! The library reads no environment: it gets what it needs in [`RuntimeOptions`], and
//! [`Environment::runtime_options`] is where variables become options.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use boxlite::{Accel, AssetSearch, RuntimeOptions, SettingsVariables};

use crate::report::CommandFailure;

/// The variables of this process as they were at its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: HashMap<OsString, OsString>,
}

impl Environment {
    /// Reads the process's environment.
    pub(crate) fn collect() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// One with these variables.
    #[cfg(test)]
    pub(crate) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// Returns any variable that is valid Unicode, for `-e NAME` and `--env-file`.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.variables.get(OsStr::new(name))?.to_str().map(str::to_owned)
    }

    /// Returns the names of the variables that are valid Unicode and begin with `prefix`, sorted.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.variables.keys().filter_map(|name| name.to_str());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Returns what to log to standard error: `BOXLITE_LOG`.
    pub(crate) fn log_filter(&self) -> Option<String> {
        self.text("BOXLITE_LOG").filter(|filter| !filter.is_empty())
    }

    /// Returns the URL of the server to use: `BOXLITE_REST_URL`.
    pub(crate) fn rest_url(&self) -> Option<String> {
        self.text("BOXLITE_REST_URL").filter(|url| !url.is_empty())
    }

    /// Returns the key for that server: `BOXLITE_API_KEY`.
    pub(crate) fn api_key(&self) -> Option<String> {
        self.text("BOXLITE_API_KEY").filter(|key| !key.is_empty())
    }

    /// Returns the options of a local runtime; `home`, from the command line, overrides the environment's.
    pub(crate) fn runtime_options(
        &self,
        home: Option<PathBuf>,
        accel: Accel,
    ) -> Result<RuntimeOptions, CommandFailure> {
        let home = home.or_else(|| self.home()).ok_or_else(|| {
            CommandFailure::local("neither BOXLITE_HOME nor HOME is set; name a home with --home")
        })?;
        Ok(RuntimeOptions {
            assets: self.assets(),
            accel,
            registry_config: self.registry_config(),
            further_registry_configs: self.further_registry_configs(),
            variables: SettingsVariables::from_lookup(|name| self.variables.get(OsStr::new(name)).cloned()),
            ..RuntimeOptions::new(home)
        })
    }

    /// Returns `BOXLITE_HOME`, or else `.boxlite` in `HOME`; an empty variable counts as unset.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        let set = |name| self.path(name).filter(|path| !path.as_os_str().is_empty());
        set("BOXLITE_HOME").or_else(|| set("HOME").map(|home| home.join(".boxlite")))
    }

    /// Returns where the assets are: in `BOXLITE_ASSETS` alone if it is set, else where this program is installed, in
    /// `boxlite` of the user's data directory, and in the host's; programs also on `PATH`, and the shim at `BOXLITE_SHIM`.
    pub(crate) fn assets(&self) -> AssetSearch {
        let mut search = AssetSearch::default();
        if let Some(directory) = self.path("BOXLITE_ASSETS") {
            search.directories = vec![directory];
        } else if let Some(directory) = self.user_data() {
            // A program's own agent speaks its language; one that lies about may be older.
            let own = search.directories.len().saturating_sub(2);
            search.directories.insert(own, directory);
        }
        let path = self.variables.get(OsStr::new("PATH"));
        search.path = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        search.shim = self.path("BOXLITE_SHIM");
        search
    }

    /// Returns where assets that this user fetches belong: `BOXLITE_ASSETS`, or else the user's or, of the administrator,
    /// the host's directory for them.
    pub(crate) fn fetched_assets(&self, administrator: bool) -> Option<PathBuf> {
        let usual = || if administrator { Some(AssetSearch::OF_HOST.into()) } else { self.user_data() };
        self.path("BOXLITE_ASSETS").or_else(usual)
    }

    fn user_data(&self) -> Option<PathBuf> {
        let data = self.path("XDG_DATA_HOME").or_else(|| Some(self.path("HOME")?.join(".local/share")))?;
        Some(data.join("boxlite"))
    }

    /// Returns the file of `REGISTRY_AUTH_FILE`, or else Docker's `config.json`.
    fn registry_config(&self) -> Option<PathBuf> {
        let named = self.path("REGISTRY_AUTH_FILE").filter(|file| !file.as_os_str().is_empty());
        named.or_else(|| self.docker_config())
    }

    /// Returns Podman's `auth.json`: that of this session, then the one that outlives it.
    fn further_registry_configs(&self) -> Vec<PathBuf> {
        let set = |name| self.path(name).filter(|path| !path.as_os_str().is_empty());
        let config = set("XDG_CONFIG_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        let directories = [set("XDG_RUNTIME_DIR"), config];
        directories.into_iter().flatten().map(|directory| directory.join("containers/auth.json")).collect()
    }

    /// Returns Docker's `config.json`, in `DOCKER_CONFIG` or else in `.docker` of the user's home.
    fn docker_config(&self) -> Option<PathBuf> {
        let named = self.path("DOCKER_CONFIG").filter(|directory| !directory.as_os_str().is_empty());
        let directory = named.or_else(|| std::env::home_dir().map(|home| home.join(".docker")))?;
        Some(directory.join("config.json"))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment { variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    fn options(variables: &[(&str, &str)], home: Option<&str>) -> Result<RuntimeOptions, CommandFailure> {
        environment(variables).runtime_options(home.map(Into::into), Accel::Auto)
    }

    /// Mutation tried: without the filter of empty variables, `BOXLITE_HOME=` names the working directory.
    #[test]
    fn a_home_is_named_by_option_then_variable_then_the_users_home() {
        let both = [("BOXLITE_HOME", "/h"), ("HOME", "/root")];
        let home = |options: Result<RuntimeOptions, CommandFailure>| options.unwrap().home;
        assert_eq!(home(options(&both, Some("/typed"))), PathBuf::from("/typed"));
        assert_eq!(home(options(&both, None)), PathBuf::from("/h"));
        let empty = [("BOXLITE_HOME", ""), ("HOME", "/root")];
        assert_eq!(home(options(&empty, None)), PathBuf::from("/root/.boxlite"));
        let none = options(&[("HOME", "")], None).unwrap_err().to_string();
        assert_eq!(none, "neither BOXLITE_HOME nor HOME is set; name a home with --home");
    }

    #[test]
    fn empty_variables_name_no_server_key_or_filter() {
        let empty = environment(&[("BOXLITE_REST_URL", ""), ("BOXLITE_API_KEY", ""), ("BOXLITE_LOG", "")]);
        assert_eq!((empty.rest_url(), empty.api_key(), empty.log_filter()), (None, None, None));
        let set = environment(&[("BOXLITE_REST_URL", "http://a"), ("BOXLITE_ASSETS", "/assets")]);
        assert_eq!(set.rest_url().as_deref(), Some("http://a"));
        let options = set.runtime_options(Some("/h".into()), Accel::Tcg).unwrap();
        assert_eq!((options.assets.directories, options.accel), (vec!["/assets".into()], Accel::Tcg));
    }

    /// Mutation tried: with `DOCKER_CONFIG=` taken at its word, the credentials are looked for in the working directory.
    #[test]
    fn assets_credentials_and_settings_come_from_their_variables() {
        let home = [("HOME", "/root"), ("PATH", "/a:/b"), ("BOXLITE_SHIM", "/shim"), ("DOCKER_CONFIG", "/d")];
        let options = options(&home, None).unwrap();
        let data = ["/root/.local/share/boxlite", "/usr/local/share/boxlite", "/usr/share/boxlite"];
        let (own, others) = options.assets.directories.split_first().unwrap();
        assert!(own.ends_with("lib/boxlite"), "{own:?}");
        assert_eq!(others, data.map(PathBuf::from));
        assert_eq!(options.assets.path, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(options.assets.shim, Some("/shim".into()));
        assert_eq!(options.registry_config, Some("/d/config.json".into()));
        let podman = environment(&[
            ("REGISTRY_AUTH_FILE", "/a.json"),
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("XDG_CONFIG_HOME", "/c"),
        ]);
        assert_eq!(podman.registry_config(), Some("/a.json".into()));
        let further = ["/run/u/containers/auth.json", "/c/containers/auth.json"].map(PathBuf::from);
        assert_eq!(podman.further_registry_configs(), further);
        let data = environment(&[("XDG_DATA_HOME", "/data"), ("HOME", "/root"), ("DOCKER_CONFIG", "")]);
        assert_eq!(data.assets().directories[1], PathBuf::from("/data/boxlite"));
        assert_eq!(data.fetched_assets(false), Some("/data/boxlite".into()));
        assert_eq!(data.fetched_assets(true), Some("/usr/local/share/boxlite".into()));
        assert_ne!(data.registry_config(), Some("config.json".into()));
        let set = environment(&[("BOXLITE_GRACE", "5m"), ("BOXLITE_HOME", "/h")]);
        let expected = |name: &str| (name == "BOXLITE_GRACE").then(|| "5m".into());
        let variables = set.runtime_options(None, Accel::Auto).unwrap().variables;
        assert_eq!(variables, SettingsVariables::from_lookup(expected));
    }
}

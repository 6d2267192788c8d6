//! The user's environment, read once and passed on as plain options.
//!
//! The command line is the only place that reads the user's environment on purpose; the library gets what it needs in
//! [`RuntimeOptions`]. [`Environment::runtime_options`] is where variables become options: a variable that the library
//! stops reading by itself is added there.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use boxlite::{Accel, RuntimeOptions};

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

    /// Returns any variable that is valid Unicode, for `-e NAME` and `--env-file`.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.variables.get(&OsString::from(name))?.to_str().map(str::to_owned)
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
            home: Some(home),
            assets: self.path("BOXLITE_ASSETS"),
            accel,
            ..RuntimeOptions::default()
        })
    }

    /// Returns `BOXLITE_HOME`, or else `.boxlite` in `HOME`; an empty variable counts as unset.
    fn home(&self) -> Option<PathBuf> {
        let set = |name| self.path(name).filter(|path| !path.as_os_str().is_empty());
        set("BOXLITE_HOME").or_else(|| set("HOME").map(|home| home.join(".boxlite")))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(&OsString::from(name)).map(PathBuf::from)
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
        let home = |options: Result<RuntimeOptions, CommandFailure>| options.unwrap().home.unwrap();
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
        assert_eq!((options.assets, options.accel), (Some("/assets".into()), Accel::Tcg));
    }
}

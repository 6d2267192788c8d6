//! How commands find a home: it is theirs.

use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::assets::Assets;

/// The home is on this host, and nobody is in between.
pub(crate) struct Reach {
    home: PathBuf,
}

impl Reach {
    pub(crate) fn of(home: &Path, _: Option<&Assets>) -> Self {
        Self { home: home.to_owned() }
    }

    /// Has `command` work on the home.
    pub(crate) fn lead(&self, command: &mut Command) {
        command.env("BOXLITE_HOME", &self.home);
    }
}

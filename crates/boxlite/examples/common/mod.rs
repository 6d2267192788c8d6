//! Helpers that the examples share.

use std::env;
use std::path::PathBuf;

use boxlite::{AssetSearch, RuntimeOptions};

/// The home and the assets that the command line uses too, by the most common of its variables.
pub(crate) fn runtime_options() -> Result<RuntimeOptions, Box<dyn std::error::Error>> {
    let directory = |variable: &str, below_home: &str| -> Option<PathBuf> {
        env::var_os(variable)
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)))
    };
    let home = directory("BOXLITE_HOME", ".boxlite").ok_or("neither BOXLITE_HOME nor HOME is set")?;
    let mut assets = AssetSearch::default();
    assets.directories.extend(directory("BOXLITE_ASSETS", ".local/share/boxlite"));
    Ok(RuntimeOptions { assets, ..RuntimeOptions::new(home) })
}

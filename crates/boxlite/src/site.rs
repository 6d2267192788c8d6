//! What every local operation works with: an opened home, its database, its settings and this host's assets.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::settings::{Settings, SettingsOptions};
use boxlite_storage::gc::{Automatic, Catalog, Tally};
use boxlite_storage::store::Store;
use boxlite_types::{Error, Result};
use boxlite_vm::shim::Accel;

use crate::assets::AssetSearch;

/// How to open a local runtime; the default is what the environment says.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The home; `BOXLITE_HOME`, or `~/.boxlite`, when absent.
    pub home: Option<PathBuf>,
    /// The directory of guest kernel, guest agent and programs; `BOXLITE_ASSETS`, or the usual places, when absent.
    pub assets: Option<PathBuf>,
    /// What runs the guests' code.
    pub accel: Accel,
    /// Settings above those of the file and the environment.
    pub settings: SettingsOptions,
}

/// An opened home with everything beside it; cheap to share, holds no lock.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) assets: AssetSearch,
    pub(crate) accel: Accel,
    pub(crate) gc_tally: Arc<Tally>,
}

impl Site {
    pub(crate) fn open(options: RuntimeOptions) -> Result<Self> {
        let home = Home::open(&options.home.map_or_else(default_home, Ok)?)?;
        let settings = Settings::load(&home, &options.settings)?;
        let store = Store::open(&home.database())?;
        let assets = AssetSearch::new(options.assets.as_deref());
        Ok(Self { home, store, settings, assets, accel: options.accel, gc_tally: Arc::default() })
    }
}

impl Site {
    /// The records, as gc asks for them.
    pub(crate) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.store.clone())
    }

    /// Frees space on behalf of starts, pulls and builds.
    pub(crate) fn collector(&self) -> Automatic {
        Automatic::new(self.home.clone(), self.catalog(), self.settings.clone())
            .counting(Arc::clone(&self.gc_tally))
    }
}

fn default_home() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BOXLITE_HOME")
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".boxlite")))
        .ok_or_else(|| Error::invalid("neither BOXLITE_HOME nor HOME is set; name a home with --home"))
}

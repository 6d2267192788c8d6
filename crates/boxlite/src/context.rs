//! The context that every local operation works with.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use boxlite_home::settings::Settings;
use boxlite_home::{Home, Reserve};
use boxlite_storage::gc::{AskRegistries, Automatic, Catalog, GcMetrics};
use boxlite_storage::image::RegistryProbe;
use boxlite_storage::store::Store;
use boxlite_types::{JailInfo, Result};
use boxlite_vm::shim::{Accel, JailPolicy};

use crate::assets::AssetSearch;
use crate::options::{MissingHome, RuntimeOptions};
use crate::pool::GuestPool;
use crate::starters::Starters;

/// Opens the home that `options` name, without its database, and reads its settings; waits for no lock.
pub(crate) fn open_home(options: &RuntimeOptions) -> Result<(Home, Settings)> {
    let home = match options.missing_home {
        MissingHome::Create => Home::open(&options.home)?,
        MissingHome::Refuse => Home::open_existing(&options.home)?,
    };
    let settings = Settings::load(&home, &options.variables, &options.settings)?;
    Ok((home, settings))
}

/// An opened home with its database, its settings and this host's assets; cheap to share, holds no lock.
#[derive(Debug)]
pub(crate) struct LocalContext {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) assets: AssetSearch,
    pub(crate) accel: Accel,
    /// The boxes that are started here end with this process.
    pub(crate) tied: bool,
    /// Those of them that do not run yet.
    pub(crate) starters: Starters,
    pub(crate) gc_metrics: Arc<GcMetrics>,
    /// Guests that wait for the next boxes, in a process that keeps some.
    pub(crate) pool: GuestPool,
    /// Says which images can be fetched again.
    pub(crate) registries: Arc<RegistryProbe>,
    /// The measures in force in a jail that was built for `info`.
    pub(crate) jail: OnceLock<JailInfo>,
}

impl LocalContext {
    /// Opens the home that `options` name.
    pub(crate) fn open(options: &RuntimeOptions) -> Result<Self> {
        let (home, settings) = open_home(options)?;
        let store = Store::open_in(&home)?;
        let assets = options.assets.clone();
        let registries = RegistryProbe::new(
            options.registry_config.as_deref(),
            &options.further_registry_configs,
            options.registries.clone(),
        )
        .with_mirrors(settings.registry_mirrors.value.clone());
        let pool = GuestPool::new(usize::try_from(settings.pool.value).unwrap_or(usize::MAX));
        let context = Self {
            pool,
            home,
            store,
            settings,
            assets,
            accel: options.accel,
            tied: options.tied,
            starters: Starters::default(),
            gc_metrics: Arc::default(),
            registries: Arc::new(registries),
            jail: OnceLock::new(),
        };
        context.fill_reserves(context.settings.emergency_floor.value.0);
        Ok(context)
    }

    /// Fills the home's reserves as far as `spare` bytes stay free; the one for stops never below the emergency floor.
    pub(crate) fn fill_reserves(&self, spare: u64) {
        let floor = self.settings.emergency_floor.value.0;
        let flush = Reserve::for_flush(&self.home, self.settings.flush_reserve.value.0);
        let filled = Reserve::for_database(&self.home).fill(spare).and(flush.fill(spare.max(floor)));
        if let Err(error) = filled {
            tracing::debug!(error = %error.chain(), "no space could be reserved");
        }
    }

    /// The jail for the QEMU at `qemu`; `None` where the settings say that there is to be none.
    pub(crate) fn jail_policy(&self, qemu: &Path) -> Result<Option<JailPolicy>> {
        let Settings { jail, jail_first_id, jail_ids, .. } = &self.settings;
        let id = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let find = || JailPolicy::find(&self.home, qemu, id(jail_first_id.value), id(jail_ids.value));
        jail.value.then(find).transpose()
    }

    /// The records, as gc asks for them.
    pub(crate) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.store.clone())
    }

    /// Frees space on behalf of starts, pulls and builds.
    pub(crate) fn collector(&self) -> Automatic {
        Automatic::new(self.home.clone(), self.catalog(), self.settings.clone())
            .counting(Arc::clone(&self.gc_metrics))
            .asking(Arc::clone(&self.registries) as Arc<dyn AskRegistries>)
    }
}

//! Settings: thresholds, grace and policy, each with where it came from.
//!
//! Later layers win: defaults, `$BOXLITE_HOME/config.toml`, `BOXLITE_*` variables, options of the embedding program or
//! the command line. Nothing here reads the environment: the caller passes the variables that it wants to count. The
//! file is a flat table of the names below; sizes read `512MiB`, `5G` or plain bytes, durations `10m` or seconds. An
//! unknown key or a value out of its range is an error that names the file or the variable, never a silent default.

mod fetch;
mod mirrors;
mod size;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use boxlite_types::{Error, Origin, Result, SettingLine};
use serde::{Deserialize, Serialize};
use value::Value;

use crate::home::Home;

pub use fetch::{FetchKeys, FetchPlaces};
pub use mirrors::{Mirror, RegistryMirrors};
pub use size::{BadAmount, Bytes, format_duration, parse_duration};
pub use value::{HostShare, KeepBlobs, KernelPath, Percent, SizeLimit};

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// The effective value.
    pub value: T,
    /// The layer that set it.
    pub origin: Origin,
}

/// Settings in the form of environment variables, such as `BOXLITE_GRACE`; see [`Settings::VARIABLES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsVariables(BTreeMap<String, OsString>);

impl SettingsVariables {
    /// Asks `lookup` for the variable of each setting.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let found = |name: &&str| Some(((*name).to_owned(), lookup(name)?));
        Self(Settings::VARIABLES.iter().filter_map(found).collect())
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:expr, $env:literal, $meaning:literal;)*) => {
        /// Every setting in force, validated.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Settings {
            $(#[doc = $meaning] pub $name: Setting<$type>,)*
        }

        /// Values set by an embedding program or the command line; `None` leaves the layers below in force.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct SettingsOptions {
            $(#[doc = $meaning] pub $name: Option<$type>,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: Setting { value: $default, origin: Origin::Default },)* }
            }
        }

        impl Settings {
            /// The keys of the settings file.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The variable of each setting.
            pub const VARIABLES: &'static [&'static str] = &[$($env),*];

            fn apply_file(&mut self, path: &Path, table: &toml::Table) -> Result<()> {
                for (key, value) in table {
                    match key.as_str() {
                        $(stringify!($name) => {
                            let value = Value::from_toml(value).map_err(|bad| in_file(path, key, &bad))?;
                            self.$name = Setting { value, origin: Origin::File(path.to_owned()) };
                        })*
                        _ => return Err(unknown_key(path, key)),
                    }
                }
                Ok(())
            }

            fn apply_variables(&mut self, variables: &SettingsVariables) -> Result<()> {
                $(if let Some(found) = variables.get($env) {
                    let value = Value::from_text(&found.to_string_lossy())
                        .map_err(|bad| Error::invalid(format!("{}: {bad}", $env)))?;
                    self.$name = Setting { value, origin: Origin::Env($env.to_owned()) };
                })*
                Ok(())
            }

            fn apply_options(&mut self, options: &SettingsOptions) {
                $(if let Some(value) = &options.$name {
                    self.$name = Setting { value: ToOwned::to_owned(value), origin: Origin::Options };
                })*
            }

            /// Every setting with its value, origin and meaning, in a stable order.
            pub fn describe(&self) -> Vec<SettingLine> {
                vec![$(SettingLine {
                    name: stringify!($name).to_owned(),
                    value: self.$name.value.to_text(),
                    origin: self.$name.origin.clone(),
                    meaning: $meaning.to_owned(),
                }),*]
            }
        }
    };
}

settings! {
    hard_floor: Bytes = Bytes(1 << 30), "BOXLITE_HARD_FLOOR",
        "Below this many free bytes nothing is started, pulled or built.";
    soft_floor: Bytes = Bytes(5 << 30), "BOXLITE_SOFT_FLOOR",
        "Below this many free bytes a start warns and collects garbage first.";
    soft_percent: Percent = Percent(10), "BOXLITE_SOFT_PERCENT",
        "Below this share of the filesystem a start warns and collects garbage first; it never refuses.";
    // A start needs about 12 inodes and a pull one per layer, so 2 000 leave room for over a hundred of either.
    inode_floor: u64 = 2_000, "BOXLITE_INODE_FLOOR",
        "Below this many free inodes nothing is started, pulled or built; below twice as many a start warns.";
    emergency_floor: Bytes = Bytes(256 << 20), "BOXLITE_EMERGENCY_FLOOR",
        "Below this many free bytes the writes of running boxes are paused.";
    // A guest's kernel holds back up to a fifth of its memory: 51 MiB in a box of the usual size.
    flush_reserve: Bytes = Bytes(64 << 20), "BOXLITE_FLUSH_RESERVE",
        "Bytes kept aside for the unsynced data of boxes that are stopped on a full disk; 0 keeps none.";
    grace: Duration = Duration::from_secs(600), "BOXLITE_GRACE",
        "What was modified more recently than this is never collected.";
    claim: Bytes = Bytes(128 << 20), "BOXLITE_CLAIM",
        "Bytes that a start claims against concurrent starts.";
    // A promise is the most that a box can take, so boxes that take it all still leave a tenth to the host.
    memory_share: HostShare = HostShare(90), "BOXLITE_MEMORY_SHARE",
        "The share of the host's memory that running boxes may be promised together; more than 100% overcommits.";
    auto_gc: bool = true, "BOXLITE_AUTO_GC",
        "Whether a start that finds space short collects garbage first.";
    keep_blobs: KeepBlobs = KeepBlobs::Auto, "BOXLITE_KEEP_BLOBS",
        "Whether layers stay once a disk image is built: auto (until space is short), always, never.";
    registry_mirrors: RegistryMirrors = RegistryMirrors::default(), "BOXLITE_REGISTRY_MIRRORS",
        "Where images of a registry are asked for first, in this order, before the registry itself.";
    image_fetch_from: FetchPlaces = FetchPlaces::default(), "BOXLITE_IMAGE_FETCH_FROM",
        "Repositories whose built disk images `image fetch` accepts; none accepts those of no repository without a key.";
    image_fetch_keys: FetchKeys = FetchKeys::default(), "BOXLITE_IMAGE_FETCH_KEYS",
        "Public keys of those whose built disk images `image fetch` accepts; where one is named, all must be signed.";
    templates: bool = true, "BOXLITE_TEMPLATES",
        "Whether boxes are restored from the memory of a booted guest where there is one, which starts them sooner.";
    pool: u64 = 0, "BOXLITE_POOL",
        "How many restored guests of the hardware used last wait in `boxlite serve` for their boxes.";
    require_kvm: bool = false, "BOXLITE_REQUIRE_KVM",
        "Whether a start is refused where its guest would be emulated instead of run by KVM.";
    kernel: KernelPath = KernelPath(None), "BOXLITE_KERNEL",
        "The kernel of guests, or a directory with its vmlinuz and modules, instead of boxlite's own.";
    jail: bool = true, "BOXLITE_JAIL",
        "Whether a box's QEMU runs in a jail; a jail that cannot be built refuses the start.";
    // systemd leaves these to nobody: its containers' end below, and its foreign ids begin above.
    jail_first_id: u64 = 0x7000_0000, "BOXLITE_JAIL_FIRST_ID",
        "The first of the user ids that root gives to running boxes, each to one box.";
    jail_ids: u64 = 1 << 16, "BOXLITE_JAIL_IDS",
        "How many user ids there are for running boxes of root.";
    disk_size: Bytes = Bytes(10 << 30), "BOXLITE_DISK_SIZE",
        "Virtual size of a box's disk.";
    volume_size: Bytes = Bytes(10 << 30), "BOXLITE_VOLUME_SIZE",
        "Size of a named volume that is made without one.";
    volume_quota: SizeLimit = SizeLimit(None), "BOXLITE_VOLUME_QUOTA",
        "By how many bytes a box may make each shared folder grow whose -v has no size=; off is no bound.";
    max_expanded: Bytes = Bytes(64 << 30), "BOXLITE_MAX_EXPANDED",
        "Most bytes that an image's files may expand to.";
    main_log_max: Bytes = Bytes(64 << 20), "BOXLITE_MAIN_LOG_MAX",
        "Most bytes kept of a box's main output.";
    console_log_max: Bytes = Bytes(4 << 20), "BOXLITE_CONSOLE_LOG_MAX",
        "Most bytes kept of a box's console.";
}

impl Settings {
    /// The settings of `home`: those of its file, under `variables`, under `options`.
    ///
    /// # Errors
    /// `InvalidInput` naming the file and key, or the variable.
    pub fn load(home: &Home, variables: &SettingsVariables, options: &SettingsOptions) -> Result<Self> {
        let path = home.config();
        let text = match crate::durable::read_text(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("reading the settings file", &path, error)),
        };
        let file = text.as_deref().map(|text| (path.as_path(), text));
        Self::resolve(file, variables, options)
    }

    /// Combines the layers into settings; reads nothing but its arguments.
    pub fn resolve(
        file: Option<(&Path, &str)>,
        variables: &SettingsVariables,
        options: &SettingsOptions,
    ) -> Result<Self> {
        let mut settings = Self::default();
        if let Some((path, text)) = file {
            let table: toml::Table = text.parse().map_err(|bad: toml::de::Error| {
                Error::invalid(format!("{} is not TOML: {}", path.display(), bad.message()))
                    .at(path)
                    .because(bad)
            })?;
            settings.apply_file(path, &table)?;
        }
        settings.apply_variables(variables)?;
        settings.apply_options(options);
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<()> {
        ordered("soft_floor", &self.soft_floor, "hard_floor", &self.hard_floor)?;
        ordered("hard_floor", &self.hard_floor, "emergency_floor", &self.emergency_floor)?;
        self.validate_ids()?;
        within("disk_size", &self.disk_size, Bytes(64 << 20), Bytes(16 << 40))?;
        within("volume_size", &self.volume_size, Bytes(32 << 20), Bytes(16 << 40))?;
        within("flush_reserve", &self.flush_reserve, Bytes(0), Bytes(1 << 40))?;
        within("claim", &self.claim, Bytes(0), Bytes(1 << 50))?;
        self.validate_pool()?;
        within("main_log_max", &self.main_log_max, Bytes(4096), Bytes(1 << 50))?;
        within("console_log_max", &self.console_log_max, Bytes(4096), Bytes(1 << 50))
    }

    fn validate_pool(&self) -> Result<()> {
        const MOST: u64 = 1000;
        if self.pool.value <= MOST {
            return Ok(());
        }
        let (value, origin) = (self.pool.value, &self.pool.origin);
        Err(Error::invalid(format!("pool is {value} ({origin}); it must be from 0 to {MOST}")))
    }

    /// The user ids of boxes must be ids, and none of those that people and services have.
    fn validate_ids(&self) -> Result<()> {
        const LEAST: u64 = 1 << 16;
        // The last id means none.
        const END: u64 = u32::MAX as u64;
        let (first, count) = (&self.jail_first_id, &self.jail_ids);
        let end = first.value.saturating_add(count.value);
        if count.value > 0 && first.value >= LEAST && end <= END {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "jail_first_id is {} ({}) and jail_ids {} ({}); the {} user ids of boxes must lie from {LEAST} to {}",
            first.value,
            first.origin,
            count.value,
            count.origin,
            count.value,
            END - 1
        )))
    }
}

/// Refuses a `larger` below its `smaller`, naming who set each.
fn ordered(larger: &str, high: &Setting<Bytes>, smaller: &str, low: &Setting<Bytes>) -> Result<()> {
    if high.value >= low.value {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{larger} is {} ({}), below {smaller}, which is {} ({}); it must not be smaller",
        high.value, high.origin, low.value, low.origin
    )))
}

fn within(name: &str, setting: &Setting<Bytes>, least: Bytes, most: Bytes) -> Result<()> {
    if (least..=most).contains(&setting.value) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} is {} ({}); it must be from {least} to {most}",
        setting.value, setting.origin
    )))
}

fn in_file(path: &Path, key: &str, bad: &BadAmount) -> Error {
    Error::invalid(format!("{}: {key}: {bad}", path.display())).at(path)
}

fn unknown_key(path: &Path, key: &str) -> Error {
    let known = Settings::NAMES.join(", ");
    Error::invalid(format!("{}: unknown setting {key:?}; the settings are {known}", path.display())).at(path)
}

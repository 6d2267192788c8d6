//! The image config: what to run, and which layers the image is made of.

use std::collections::BTreeMap;

use boxlite_types::{Digest, Error, HealthCheck, ImageConfig, Platform, Result};
use serde::{Deserialize, Deserializer};

/// A config with what only pulling needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    /// Absent where the author named none.
    pub(crate) platform: Option<Platform>,
    /// Digests of the uncompressed layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: RawRun,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    stop_signal: Option<String>,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "readable")]
    healthcheck: Option<RawHealthcheck>,
}

/// Docker's `Healthcheck`, whose times are nanoseconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    #[serde(deserialize_with = "or_default")]
    test: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    interval: u64,
    #[serde(deserialize_with = "or_default")]
    timeout: u64,
    #[serde(deserialize_with = "or_default")]
    start_period: u64,
    #[serde(deserialize_with = "or_default")]
    start_interval: u64,
    #[serde(deserialize_with = "or_default")]
    retries: u32,
}

impl RawHealthcheck {
    /// Returns the check that it describes; `None` where it only inherits from images that are gone.
    fn into_check(self) -> Option<HealthCheck> {
        // Less than a millisecond, which Docker refuses, is a time all the same.
        let ms = |nanos: u64| (nanos > 0).then(|| (nanos / 1_000_000).max(1));
        (!self.test.is_empty()).then(|| HealthCheck {
            test: self.test,
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            start_period_ms: ms(self.start_period),
            start_interval_ms: ms(self.start_interval),
            retries: (self.retries > 0).then_some(self.retries),
        })
    }
}

/// Go writes what is unset as `null` as often as it leaves it out.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A field that no specification describes must not make an image unusable.
fn readable<'de, T: serde::de::DeserializeOwned, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

/// Parses the config of the image `name`, whose digest was checked before.
///
/// # Errors
/// `Corrupt` when it is malformed or does not list one `diff_id` for each of `layers` layers.
pub(crate) fn parse_config(bytes: &[u8], layers: usize, name: &str) -> Result<ParsedConfig> {
    let raw: RawConfig = serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(format!("the config of {name} is malformed")).because(error))?;
    let diff_ids = raw.rootfs.diff_ids;
    if diff_ids.len() != layers {
        let message = format!(
            "the config of {name} lists {} diff_ids, and its manifest {layers} layers",
            diff_ids.len()
        );
        return Err(Error::corrupt(message));
    }
    let platform = (!raw.os.is_empty() && !raw.architecture.is_empty()).then_some(Platform {
        os: raw.os,
        architecture: raw.architecture,
        variant: raw.variant.filter(|variant| !variant.is_empty()),
    });
    let run = raw.config;
    let config = ImageConfig {
        entrypoint: run.entrypoint,
        cmd: run.cmd,
        env: run.env,
        working_dir: run.working_dir,
        user: run.user,
        stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
        exposed_ports: run.exposed_ports.into_keys().collect(),
        volumes: run.volumes.into_keys().collect(),
        labels: run.labels,
        healthcheck: run.healthcheck.and_then(RawHealthcheck::into_check),
        created: raw.created,
    };
    Ok(ParsedConfig { config, platform, diff_ids })
}

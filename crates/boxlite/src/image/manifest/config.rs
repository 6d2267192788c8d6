//! The image config: what to run, and which layers the image is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::image::{Digest, Platform};

/// How an image wants to be run (OCI image spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`: the default arguments of the entrypoint, or the command itself.
    pub cmd: Vec<String>,
    /// `Env`: `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`; empty for `/`.
    pub working_dir: String,
    /// `User`: `user[:group]`, names or numbers; empty for root.
    pub user: String,
    /// `StopSignal`: a name or a number.
    pub stop_signal: Option<String>,
    /// `ExposedPorts`: `port[/protocol]`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`: paths that the image expects to be mounted.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// When the image was made, as its author wrote it.
    pub created: Option<String>,
}

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
struct Raw {
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
}

/// Go writes what is unset as `null` as often as it leaves it out.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Parses the config of the image `name`, whose digest was checked before.
///
/// # Errors
/// `Corrupt` when it is malformed or does not list one `diff_id` for each of `layers` layers.
pub(crate) fn parse_config(bytes: &[u8], layers: usize, name: &str) -> Result<ParsedConfig> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
        Error::corrupt(format!("the config of {name} is malformed: {error}")).because(error)
    })?;
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
        created: raw.created,
    };
    Ok(ParsedConfig { config, platform, diff_ids })
}

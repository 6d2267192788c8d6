//! How to open a local runtime.

use std::path::PathBuf;

use boxlite_home::settings::{SettingsOptions, SettingsVariables};
use boxlite_storage::image::RegistryPolicy;
use boxlite_vm::shim::Accel;

use crate::assets::AssetSearch;

/// The behaviour where there is no home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MissingHome {
    /// Create one.
    #[default]
    Create,
    /// Answer `NotFound`, and leave the path as it is.
    Refuse,
}

/// How to open a local runtime.
///
/// The library reads no environment variables: a program that wants its user's variables to count passes their values,
/// as the command line does.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// The home.
    pub home: PathBuf,
    /// The behaviour where there is none.
    pub missing_home: MissingHome,
    /// The directories of the guest's kernel and agent and of the programs.
    pub assets: AssetSearch,
    /// The accelerator that runs the guests' code.
    pub accel: Accel,
    /// Docker's `config.json` with the credentials for registries, which a login changes; without one, pulls are
    /// anonymous.
    pub registry_config: Option<PathBuf>,
    /// Files of the same form, such as Podman's `auth.json`, asked in turn where the first has nothing for a registry.
    pub further_registry_configs: Vec<PathBuf>,
    /// The registries that pulls may use. A program that pulls for others, as `boxlite serve` does, names the private ones
    /// that they may use.
    pub registries: RegistryPolicy,
    /// The full URL of an OpenTelemetry collector's traces, such as `http://localhost:4318/v1/traces`, which gets one of each
    /// start; without one, none is made.
    pub traces: Option<String>,
    /// Boxes that this runtime starts end with this process, however that ends: a box that removes itself is killed at once,
    /// any other is stopped without a grace. Their processes stay in this process's control group where that bounds memory
    /// or processors.
    pub tied: bool,
    /// Settings in the form of environment variables, above those of the home's settings file.
    pub variables: SettingsVariables,
    /// Settings above all others.
    pub settings: SettingsOptions,
}

impl RuntimeOptions {
    /// The runtime of `home` with the defaults for everything else.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            missing_home: MissingHome::default(),
            assets: AssetSearch::default(),
            accel: Accel::default(),
            registry_config: None,
            further_registry_configs: Vec::new(),
            registries: RegistryPolicy::default(),
            traces: None,
            tied: false,
            variables: SettingsVariables::default(),
            settings: SettingsOptions::default(),
        }
    }
}

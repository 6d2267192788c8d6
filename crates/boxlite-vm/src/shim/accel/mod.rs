//! Which accelerator a VM can use on this host: detected by running guest code, never guessed from a device node.

mod cache;
mod trial;
mod tsc;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use boxlite_home::Home;
use boxlite_jail::View;
use boxlite_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// QEMU's translator, even where KVM works.
    Tcg,
}

impl FromStr for Accel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(Error::invalid(format!(
                "the accelerator {text:?} is unknown; it is one of auto, kvm, tcg"
            ))),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What a VM is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg {
        /// Rate of the host's time-stamp counter in kHz, which the guest's kernel cannot calibrate by itself.
        tsc_khz: u32,
    },
}

impl Accelerator {
    /// `kvm` or `tcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }
}

/// The accelerator chosen and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What VMs are started with.
    pub accelerator: Accelerator,
    /// One clause for people: why this one.
    pub reason: String,
}

/// Findings about this host, kept until it reboots or its QEMU or its libraries change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Nothing when KVM runs guest code, else why it does not.
    pub kvm_trouble: Option<String>,
    /// Rate of the time-stamp counter in kHz.
    pub tsc_khz: u32,
    /// First line of `qemu --version`.
    pub qemu_version: String,
    /// The files of the host that QEMU needs in order to start, or why they cannot be found.
    pub view: std::result::Result<View, String>,
}

/// Chooses the accelerator for VMs run by the QEMU at `qemu`.
///
/// The first call after a reboot or an upgrade of QEMU takes 0.1 s (up to 5 s where KVM hangs); its findings are
/// kept in the home's `vm/`, so that later calls cost two small reads.
///
/// # Errors
/// `Unsupported` when `wanted` is [`Accel::Kvm`] and KVM does not run guest code here, with the reason.
pub fn choose(home: &Home, qemu: &Path, wanted: Accel) -> Result<Choice> {
    let host = examine(home, qemu)?;
    let tcg = Accelerator::Tcg { tsc_khz: host.tsc_khz };
    match (wanted, host.kvm_trouble) {
        (Accel::Tcg, _) => Ok(Choice { accelerator: tcg, reason: "asked for".into() }),
        (Accel::Auto, None) => Ok(Choice {
            accelerator: Accelerator::Kvm,
            reason: "the CPU has it, /dev/kvm opens and a trial guest ran".into(),
        }),
        (Accel::Kvm, None) => {
            Ok(Choice { accelerator: Accelerator::Kvm, reason: "asked for, and a trial guest ran".into() })
        }
        (Accel::Auto, Some(trouble)) => {
            Ok(Choice { accelerator: tcg, reason: format!("KVM is not usable: {trouble}") })
        }
        (Accel::Kvm, Some(trouble)) => {
            Err(Error::unsupported(format!("KVM is not usable here: {trouble}; use --accel auto or tcg")))
        }
    }
}

/// What tells the QEMU at `qemu` from another, and this run of the host from another.
pub(crate) fn identity(qemu: &Path) -> Result<String> {
    serde_json::to_string(&cache::key(qemu)?)
        .map_err(|error| Error::bug("a host's key does not serialise").because(error))
}

/// The findings about this host and its QEMU, from the cache or from a fresh trial.
pub fn examine(home: &Home, qemu: &Path) -> Result<Host> {
    let key = cache::key(qemu)?;
    if let Some(host) = cache::load(home, &key) {
        return Ok(host);
    }
    let host = Host {
        kvm_trouble: trial::kvm_trouble(qemu),
        tsc_khz: tsc::measure_khz(),
        qemu_version: trial::version(qemu)?,
        view: boxlite_jail::qemu::view_of(qemu).map_err(|error| error.to_string()),
    };
    Ok(cache::keep_first(home, &key, host))
}

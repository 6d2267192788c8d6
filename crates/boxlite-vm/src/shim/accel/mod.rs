//! Which accelerator a VM can use on this host: detected by running guest code, never guessed from a device node.

mod cache;
mod kvm;
mod trial;
mod tsc;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use boxlite_home::Home;
use boxlite_jail::View;
use boxlite_types::{Error, Result};
pub(super) use kvm::DEVICE as KVM_DEVICE;
use kvm::{Demand, KvmDevice, KvmFinding};
use serde::{Deserialize, Serialize};

/// The accelerator that the user asks for.
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

/// The accelerator that a VM is started with.
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
    /// The accelerator that VMs are started with.
    pub accelerator: Accelerator,
    /// One clause for people: why this one.
    pub reason: String,
}

/// Findings about this host, kept until it reboots or its QEMU or its libraries change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The finding about KVM.
    kvm: KvmFinding,
    /// Rate of the time-stamp counter in kHz.
    pub tsc_khz: u32,
    /// First line of `qemu --version`.
    pub qemu_version: String,
    /// The files of the host that QEMU needs in order to start, or why they cannot be found.
    pub view: std::result::Result<View, String>,
}

/// Chooses the accelerator for VMs run by the QEMU at `qemu`.
///
/// The first call after a reboot or an upgrade of QEMU takes 0.1 s (up to 5 s where KVM hangs, and 30 s for who will have nothing else); its findings are
/// kept in the home's `vm/`, so that later calls cost a few small reads. Where the host shows another device for KVM than
/// at the last trial, there is another one.
///
/// # Errors
/// `Unsupported` when `wanted` is [`Accel::Kvm`] and KVM does not run guest code here, with the reason.
pub fn choose(home: &Home, qemu: &Path, wanted: Accel) -> Result<Choice> {
    let demand = if wanted == Accel::Kvm { Demand::Needing } else { Demand::Idle };
    decide(&examine_for(home, qemu, demand)?, wanted)
}

/// The same for somebody who asks which it is: a trial that failed is repeated. With the version of QEMU.
///
/// # Errors
/// As [`choose`].
pub fn choose_anew(home: &Home, qemu: &Path, wanted: Accel) -> Result<(Choice, String)> {
    let demand = if wanted == Accel::Kvm { Demand::Needing } else { Demand::Pressing };
    let host = examine_for(home, qemu, demand)?;
    Ok((decide(&host, wanted)?, host.qemu_version))
}

fn decide(host: &Host, wanted: Accel) -> Result<Choice> {
    let tcg = Accelerator::Tcg { tsc_khz: host.tsc_khz };
    match (wanted, host.kvm.trouble()) {
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

/// Returns the message that a start is to show about `choice`: that boxes are emulated though nobody asked for that,
/// the first time on this host and whenever the reason is another one.
pub fn news(home: &Home, wanted: Accel, choice: &Choice) -> Option<String> {
    let fallback = wanted == Accel::Auto && choice.accelerator != Accelerator::Kvm;
    let reason = fallback.then_some(choice.reason.as_str());
    if wanted == Accel::Tcg || !cache::is_news(home, reason) {
        return None;
    }
    reason.map(|reason| {
        format!(
            "boxes are emulated (TCG): they are slower, and QEMU does not treat an escape from emulation as a security \
             bug. {reason}. This is said once; the setting require_kvm = true refuses such starts"
        )
    })
}

/// Returns a text that tells the QEMU at `qemu` from another, and this run of the host from another.
pub(crate) fn identity(qemu: &Path) -> Result<String> {
    serde_json::to_string(&cache::key(qemu)?)
        .map_err(|error| Error::bug("a host's key does not serialise").because(error))
}

/// The findings about this host and its QEMU, from the cache or from a fresh trial.
pub fn examine(home: &Home, qemu: &Path) -> Result<Host> {
    examine_for(home, qemu, Demand::Idle)
}

fn examine_for(home: &Home, qemu: &Path, demand: Demand) -> Result<Host> {
    let key = cache::key(qemu)?;
    let (device, now) = (KvmDevice::look(), unix_seconds());
    let find_kvm =
        |device| KvmFinding::make(device, now, || trial::run_under_kvm(qemu, demand.trial_timeout()));
    if let Some(mut host) = cache::load(home, &key) {
        if !host.kvm.counts(&device, now, demand) {
            let before = host.kvm.trouble();
            host.kvm = find_kvm(device);
            tracing::info!(?before, now = ?host.kvm.trouble(), "KVM was examined again");
            cache::replace_kvm(home, &key, &host.kvm);
        }
        return Ok(host);
    }
    let host = Host {
        kvm: find_kvm(device),
        tsc_khz: tsc::measure_khz(),
        qemu_version: trial::version(qemu)?,
        view: boxlite_jail::qemu::view_of(qemu).map_err(|error| error.to_string()),
    };
    Ok(cache::keep_first(home, &key, host))
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(accelerator: Accelerator, reason: &str) -> Choice {
        Choice { accelerator, reason: reason.into() }
    }

    /// Mutation tried: a note that is not kept has the second start say it again.
    #[test]
    fn a_fallback_is_said_once_and_again_when_its_reason_changes() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        if !boxlite_testkit::oracle::require(qemu) {
            return;
        }
        examine(&home, qemu).unwrap();
        let tcg = Accelerator::Tcg { tsc_khz: 1 };
        let says = |wanted, choice: &Choice| news(&home, wanted, choice);
        let absent = choice(tcg, "KVM is not usable: no device");
        assert!(says(Accel::Auto, &absent).unwrap().contains("no device"));
        assert_eq!(says(Accel::Auto, &absent), None);
        assert_eq!(says(Accel::Tcg, &choice(tcg, "asked for")), None);
        assert_eq!(says(Accel::Auto, &absent), None, "one box that was to be emulated is no news");
        assert!(says(Accel::Auto, &choice(tcg, "KVM is not usable: busy")).unwrap().contains("busy"));
        assert_eq!(says(Accel::Auto, &choice(Accelerator::Kvm, "it ran")), None);
        assert!(says(Accel::Auto, &absent).is_some(), "it was lost again");
    }
}

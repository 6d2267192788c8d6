//! The findings about KVM on this host, and how long they hold.
//!
//! A trial guest answers the question but costs a tenth of a second, or its time limit where KVM hangs. So its answer is
//! kept together with what the host showed at that time, which costs one open to look at again: once that differs (a
//! module was loaded or removed, a permission given), there is another trial. A trial that failed while the host showed
//! the same may have met a device in use or a busy host, and is repeated after a while, or at once for whoever asks.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::trial::TrialError;

/// KVM's device.
pub(in crate::shim) const DEVICE: &str = "/dev/kvm";

/// Only the first processor's flags are looked at: the file of a large host takes milliseconds to make.
const CPUINFO_BYTES: u64 = 16 << 10;

/// How long the word of a trial counts that ended without its guest having run.
const FAILURE_COUNTS: Duration = Duration::from_secs(60);

/// The same for one that hung, since the next one may take as long.
const HANG_COUNTS: Duration = Duration::from_secs(3600);

/// A guest that runs takes 0.1 s; one that hangs is given this long.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where nothing but KVM will do: a busy host delays a guest, too.
const PATIENT_TRIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The host's KVM device, as seen without a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KvmDevice {
    /// The processor shows no virtualisation.
    NoVirtualisation {
        /// Whether KVM is PVM, which does without but runs only kernels that were made for it.
        pvm: bool,
    },
    /// The device cannot be opened, for this reason.
    Closed(String),
    /// It opens; another module makes another file.
    Open {
        /// Number of the file.
        inode: u64,
        /// When it was last changed, in nanoseconds.
        changed: i64,
    },
}

impl KvmDevice {
    /// Looks at this host.
    pub(super) fn look() -> Self {
        let mut cpuinfo = String::new();
        let opened = File::open("/proc/cpuinfo");
        let _ = opened.and_then(|file| file.take(CPUINFO_BYTES).read_to_string(&mut cpuinfo));
        if !has_virtualisation(&cpuinfo) {
            return Self::NoVirtualisation { pvm: Path::new("/sys/module/kvm_pvm").exists() };
        }
        let device = File::options().read(true).write(true).open(DEVICE);
        match device.and_then(|device| device.metadata()) {
            Ok(found) => Self::Open {
                inode: found.ino(),
                changed: found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec()),
            },
            Err(error) => Self::Closed(error.to_string()),
        }
    }

    /// Why a trial would be in vain; nothing where only a trial can tell.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::NoVirtualisation { pvm: false } => Some("the CPU shows neither vmx nor svm".into()),
            Self::NoVirtualisation { pvm: true } => Some(
                "the CPU shows neither vmx nor svm, and this host's KVM is PVM (CONFIG_KVM_PVM), in which only kernels \
                 made for it run, so that others hang; run boxes on a host with vmx or svm to have KVM"
                    .into(),
            ),
            Self::Closed(reason) => Some(format!("{DEVICE} cannot be opened for reading and writing: {reason}")),
            Self::Open { .. } => None,
        }
    }
}

/// How urgently an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// By a start that goes on without KVM.
    Idle,
    /// By somebody who asks about it.
    Pressing,
    /// By a start that fails without it.
    Needing,
}

impl Demand {
    /// How long a trial may take.
    pub(super) fn trial_timeout(self) -> Duration {
        match self {
            Self::Idle | Self::Pressing => TRIAL_TIMEOUT,
            Self::Needing => PATIENT_TRIAL_TIMEOUT,
        }
    }
}

/// The finding about KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KvmFinding {
    device: KvmDevice,
    /// Nothing when a trial guest ran or none was tried.
    failure: Option<TrialError>,
    /// Seconds of the system's clock at which this was found.
    at: u64,
}

impl KvmFinding {
    /// The finding of a host that shows `device` now, trying it where that can be of use.
    pub(super) fn make(device: KvmDevice, now: u64, trial: impl FnOnce() -> Result<(), TrialError>) -> Self {
        let failure = if device.trouble().is_none() { trial().err() } else { None };
        Self { device, failure, at: now }
    }

    /// Whether this still tells about a host that shows `device` now.
    pub(super) fn counts(&self, device: &KvmDevice, now: u64, demand: Demand) -> bool {
        let age = Duration::from_secs(now.saturating_sub(self.at));
        // A clock that was put back does not make it new.
        let recent = |limit: Duration| now >= self.at && demand == Demand::Idle && age < limit;
        *device == self.device
            && match &self.failure {
                None => true,
                Some(TrialError::Failed(_)) => recent(FAILURE_COUNTS),
                Some(TrialError::Hung(_)) => recent(HANG_COUNTS),
            }
    }

    /// Nothing when KVM runs guests, else why not.
    pub(super) fn trouble(&self) -> Option<String> {
        let failure = || self.failure.as_ref().map(ToString::to_string);
        self.device.trouble().or_else(failure)
    }
}

/// Whether the text of `/proc/cpuinfo` lists Intel's or AMD's virtualisation among the CPU flags.
fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: KvmDevice = KvmDevice::Open { inode: 7, changed: 1 };

    fn closed() -> KvmDevice {
        KvmDevice::Closed("Permission denied (os error 13)".into())
    }

    #[test]
    fn virtualisation_is_read_from_the_flags_line_only() {
        assert!(has_virtualisation("model name : x\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags\t\t: fpu svm\n"));
        assert!(!has_virtualisation("flags\t\t: fpu sse\nvmx flags\t: vnmi\nmodel name : vmx svm\n"));
        assert!(!has_virtualisation("flags : svm_lock vmxon\n"));
        assert!(!has_virtualisation(""));
    }

    /// A trial costs a hundred times what a look costs.
    #[test]
    fn only_a_device_that_opens_is_tried() {
        let never = || -> Result<(), TrialError> { panic!("tried in vain") };
        for device in [closed(), KvmDevice::NoVirtualisation { pvm: false }] {
            assert!(KvmFinding::make(device, 0, never).trouble().is_some());
        }
        assert_eq!(KvmFinding::make(OPEN, 0, || Ok(())).trouble(), None);
    }

    /// Mutation tried: without the comparison of devices, every one of these stays.
    #[test]
    fn a_finding_ends_with_what_the_host_showed() {
        let found = |device| KvmFinding::make(device, 100, || Ok(()));
        let absent = KvmDevice::Closed("No such file or directory (os error 2)".into());
        let other = KvmDevice::Open { inode: 8, changed: 1 };
        for (before, now) in [(closed(), OPEN), (absent.clone(), OPEN), (OPEN, absent), (OPEN, other)] {
            assert!(!found(before.clone()).counts(&now, 101, Demand::Idle), "{before:?} {now:?}");
            assert!(found(before.clone()).counts(&before, u64::MAX, Demand::Pressing), "{before:?}");
        }
    }

    /// Mutation tried: with a hang counting no longer than a failure, the last but one assertion fails.
    #[test]
    fn a_failed_trial_is_repeated_after_a_while_or_on_demand() {
        let busy = KvmFinding::make(OPEN, 100, || Err(TrialError::Failed("Device or resource busy".into())));
        assert!(busy.counts(&OPEN, 159, Demand::Idle));
        assert!(!busy.counts(&OPEN, 160, Demand::Idle));
        assert!(!busy.counts(&OPEN, 101, Demand::Pressing));
        assert!(!busy.counts(&OPEN, 99, Demand::Idle), "the clock was put back");
        let hung = KvmFinding::make(OPEN, 100, || Err(TrialError::Hung(5)));
        assert!(hung.counts(&OPEN, 3699, Demand::Idle));
        assert!(!hung.counts(&OPEN, 3700, Demand::Idle));
    }

    #[test]
    fn pvm_is_named_with_what_to_do() {
        let trouble = KvmDevice::NoVirtualisation { pvm: true }.trouble().unwrap();
        assert!(
            trouble.contains("CONFIG_KVM_PVM") && trouble.contains("a host with vmx or svm"),
            "{trouble}"
        );
    }
}

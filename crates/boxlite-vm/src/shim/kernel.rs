//! Kernels of the user's: whether one brings guests up is found out once per host, by the first start with it.
//!
//! That start is the trial: it runs in its box's jail, under the accelerator in use, and is given [`TRIAL_TIMEOUT`]. What came
//! of it is kept in the home's `vm/kernels.json` under the identities of the kernel, the agent, QEMU and this run of the host.
//! A kernel that failed is refused for a while, so that what starts again and again does not wait each time.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boxlite_home::Home;
use boxlite_home::durable::{self, Staged};
use boxlite_types::{Doing, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::accel;
use super::launch::LaunchSpec;

/// How long a guest may take that a kernel is to bring up for the first time.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a failure counts.
const FAILURE_COUNTS: Duration = Duration::from_secs(600);

/// Most findings that are kept.
const MOST: usize = 32;

/// The kernel's own words, which are what a trial that fails leaves to go by.
const TRIAL_ARGUMENT: &str = "loglevel=7";

/// A kernel of the user's, with this host's QEMU and accelerator.
#[derive(Debug, Clone)]
pub struct UserKernel {
    key: String,
    path: PathBuf,
    findings: PathBuf,
    tmp: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KernelFinding {
    /// Nothing where the guest came up.
    failure: Option<String>,
    /// Seconds of the system's clock.
    at: u64,
}

impl UserKernel {
    /// The kernel that was given as `path` and is booted as `spec` says.
    ///
    /// # Errors
    /// `Io` when the boot files or QEMU cannot be examined.
    pub fn of(home: &Home, spec: &LaunchSpec, path: &Path) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(accel::identity(&spec.qemu)?);
        hash.update(format!("{:?}", std::mem::discriminant(&spec.accel)));
        for file in [&spec.kernel, &spec.initrd] {
            // Boot files have the identity of their sources in their names.
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update([0]);
        }
        Ok(Self {
            key: hex::encode(&hash.finalize()[..12]),
            path: path.to_owned(),
            findings: home.vm().join("kernels.json"),
            tmp: home.tmp(),
        })
    }

    /// Prepares `spec` for the kernel; says whether the start is its trial, in which the guest is booted whatever templates
    /// there are.
    ///
    /// # Errors
    /// `Unsupported` for a kernel that failed a short while ago.
    pub fn prepare(&self, spec: &mut LaunchSpec) -> Result<bool> {
        match self.findings().remove(&self.key) {
            Some(KernelFinding { failure: None, .. }) => Ok(false),
            Some(KernelFinding { failure: Some(failure), at }) if since(at) < FAILURE_COUNTS => {
                Err(Error::unsupported(format!(
                    "the kernel {} brought no guest up {} s ago ({failure}); choose another, or try it again in {} s or \
                     after it was replaced",
                    self.path.display(),
                    since(at).as_secs(),
                    (FAILURE_COUNTS.saturating_sub(since(at))).as_secs()
                ))
                .at(&self.path))
            }
            _ => {
                spec.boot_timeout_ms = Some(TRIAL_TIMEOUT.as_millis() as u64);
                spec.kernel_arguments.push(TRIAL_ARGUMENT.to_owned());
                Ok(true)
            }
        }
    }

    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what came of the trial: nothing where the guest came up, else why it did not. Findings that cannot be kept (on
    /// a full disk) cost the next start a trial.
    pub fn note(&self, failure: Option<String>) {
        if let Err(error) = self.try_note(KernelFinding { failure, at: unix_seconds() }) {
            tracing::debug!(error = %error.chain(), "what came of a kernel's trial was not kept");
        }
    }

    fn try_note(&self, finding: KernelFinding) -> Result<()> {
        // While another process writes, this finding is left out.
        let Some(staged) = Staged::take_over(&self.tmp, "kernels.json.partial")? else { return Ok(()) };
        let mut findings = self.findings();
        findings.insert(self.key.clone(), finding);
        while findings.len() > MOST {
            let oldest = findings.iter().min_by_key(|(_, finding)| finding.at).map(|(key, _)| key.clone());
            oldest.map(|key| findings.remove(&key));
        }
        let text = serde_json::to_vec(&findings)
            .map_err(|error| Error::bug("findings do not serialise").because(error))?;
        let doing = "writing";
        staged.file().set_len(0).doing(doing, &self.findings)?;
        staged.file().write_all(&text).doing(doing, &self.findings)?;
        staged.publish(&self.findings).map(drop)
    }

    fn findings(&self) -> BTreeMap<String, KernelFinding> {
        let text = durable::read_text(&self.findings).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// A clock that was put back makes everything old.
fn since(at: u64) -> Duration {
    unix_seconds().checked_sub(at).map_or(Duration::MAX, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::accel::Accelerator;

    fn spec() -> LaunchSpec {
        let [qemu, kernel, initrd] = ["/bin/sh", "/bin/ls", "/bin/cat"].map(PathBuf::from);
        LaunchSpec { qemu, kernel, initrd, ..LaunchSpec::sample() }
    }

    #[test]
    fn a_kernel_is_tried_once_per_host_and_refused_for_a_while_where_it_failed() {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::open(&scratch.path().join("home")).unwrap();
        let of = |spec: &LaunchSpec| UserKernel::of(&home, spec, Path::new("/k/vmlinuz")).unwrap();
        let is_trial = |mut spec: LaunchSpec| of(&spec.clone()).prepare(&mut spec).map(|trial| (trial, spec));

        let (trial, tried) = is_trial(spec()).unwrap();
        assert!(trial && tried.boot_timeout_ms == Some(60_000) && tried.kernel_arguments == ["loglevel=7"]);
        of(&spec()).note(None);
        let (trial, tried) = is_trial(spec()).unwrap();
        assert!(!trial && tried.boot_timeout_ms.is_none() && tried.kernel_arguments.is_empty());

        let others = [
            LaunchSpec { kernel: "/bin/rm".into(), ..spec() },
            LaunchSpec { initrd: "/bin/rm".into(), ..spec() },
            LaunchSpec { qemu: "/bin/cat".into(), ..spec() },
            LaunchSpec { accel: Accelerator::Kvm, ..spec() },
        ];
        for other in others {
            assert!(is_trial(other.clone()).unwrap().0, "{other:?}");
            of(&other).note(Some("it said: no console".into()));
            let refused = is_trial(other).unwrap_err().to_string();
            assert!(refused.contains("/k/vmlinuz") && refused.contains("no console"), "{refused}");
        }
        let (failed, then) = (of(&spec()), unix_seconds() - FAILURE_COUNTS.as_secs());
        failed.try_note(KernelFinding { failure: Some("x".into()), at: then }).unwrap();
        assert!(is_trial(spec()).unwrap().0, "that was long ago");
        failed.try_note(KernelFinding { failure: Some("x".into()), at: u64::MAX }).unwrap();
        assert!(is_trial(spec()).unwrap().0, "the clock was put back");
    }
}

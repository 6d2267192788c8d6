//! Rights that a process gives up in place: one that has to stay among the host's processes, with files of its own.
//!
//! The shim's steward serves a process that an attacker may have taken over, and it has work to do on the host: it collects garbage
//! in its home, opens the box's logs and ends what serves the box's devices. So it keeps its namespaces and its user, and gives up
//! everything else.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::cgroup;
use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::filter;
use crate::report::JailReport;
use crate::stage::seal;

/// The files and children that a process keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Directories below which it may do everything that its user may; nothing outside of them exists for it.
    pub directories: Vec<PathBuf>,
    /// The leaders of the process groups that it may end; it signals nobody else.
    pub groups: Vec<u32>,
    /// The part of root's rights to other users' files that it keeps, where it is root's.
    pub foreign_files: ForeignFiles,
}

/// The rights to other users' files that a process of root keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignFiles {
    /// Nothing.
    None,
    /// To work with them as their owner would: its directories are another user's.
    Work,
}

/// Leaves this process `confinement` and nothing else, for good, and says which measures are in force.
///
/// Processes that it started before are not affected; it starts nothing afterwards.
///
/// # Errors
/// When the process has more than one thread, whose others would stay as they are, or a measure cannot be taken.
pub fn confine(confinement: &Confinement) -> Result<JailReport> {
    require_one_thread()?;
    let is_root = rustix::process::geteuid().is_root();
    let kept = kept_capabilities(confinement, is_root);
    if is_root {
        rustix::thread::set_thread_groups(&[]).doing("giving up groups")?;
    }
    seal::keep_capabilities(kept)?;
    rustix::thread::set_no_new_privs(true).doing("giving up new privileges")?;
    if seal::landlock_version().is_ok() {
        seal::landlock_directories(&confinement.directories, &cgroup::parents())?;
    }
    for filter in filter::confined_filters(std::process::id(), &confinement.groups)? {
        seal::filter(&filter)?;
    }
    Ok(measures(confinement, is_root))
}

/// Refuses where a measure would leave another thread as it is.
pub(crate) fn require_one_thread() -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").doing("counting this process's threads")?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(JailError::new(format!("a process with {threads} threads cannot be confined")))
    }
}

/// The measures that [`confine`] takes for this user on this host.
pub fn confinement_measures(confinement: &Confinement) -> JailReport {
    measures(confinement, rustix::process::geteuid().is_root())
}

/// Root's capabilities are what lets it into files of other users.
fn kept_capabilities(confinement: &Confinement, is_root: bool) -> CapabilitySet {
    match confinement.foreign_files {
        ForeignFiles::Work if is_root => {
            CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::CHOWN
        }
        _ => CapabilitySet::empty(),
    }
}

fn measures(confinement: &Confinement, is_root: bool) -> JailReport {
    let mut report = JailReport::default();
    report.in_force("environment", "its logging and its settings, nothing else of the starter's");
    match confinement.foreign_files {
        ForeignFiles::Work if is_root => report.missing_because(
            "capabilities",
            "the home is another user's: it keeps root's rights to that user's files, and no others",
        ),
        _ => report.in_force("capabilities", "none"),
    }
    report.in_force("no_new_privs", "set");
    match seal::landlock_version() {
        Ok(version) => {
            report.in_force("Landlock", format!("version {version}, the home's files and no others, no TCP"));
        }
        Err(error) => report.missing_because("Landlock", format!("this kernel does not have it: {error}")),
    }
    report
        .in_force("system calls", "no new processes, no connections, no signals but to what serves devices");
    report.missing_because(
        "user",
        "it works in the home, whose files are the starter's; a guest has no way to it",
    );
    report
}

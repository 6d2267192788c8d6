//! Finding the shim of a box whose socket is gone, so that the box can be ended all the same.
//!
//! A shim is reached through its socket, and a box's directory is its user's: whoever tidies up in it may delete the socket.
//! The box then runs on where nobody reaches it. Its lock still tells which processes are of it: they have the file open, and
//! they run the shim's program.

use std::fs;
use std::path::{Path, PathBuf};

use boxlite_home::durable::FileId;
use boxlite_types::{Doing, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The name of the shim's program, which its processes have had since they were started.
const PROGRAM: &str = "boxlite-shim";

/// The name of a steward's thread: it ends with its shim, and has what is to be done after the run to do.
const STEWARD: &str = "boxlite-steward";

/// A process of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LockHolder {
    pid: i32,
    parent: i32,
    is_steward: bool,
}

/// Sends `signal` to the shim whose box has the lock at `lock`; says whether there is such a process.
///
/// # Errors
/// When the lock cannot be examined, or the process not be signalled.
pub(super) fn signal_shim(lock: &Path, signal: Signal) -> Result<bool> {
    let wanted = FileId::of(&fs::metadata(lock).doing("examining", lock)?);
    let holders = holders(wanted);
    let Some(shim) = shim_of(&holders) else { return Ok(false) };
    let Some(pid) = Pid::from_raw(shim.pid) else { return Ok(false) };
    // The descriptor stays this process's; after it, another look tells that the number was not given away before.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    if holder(shim.pid, wanted) != Some(shim) {
        return Ok(false);
    }
    pidfd_send_signal(&process, signal).doing("ending the shim that holds", lock)?;
    Ok(true)
}

/// The process that the others are children of; a steward only where nothing else is left.
fn shim_of(holders: &[LockHolder]) -> Option<LockHolder> {
    let is_child = |holder: &LockHolder| holders.iter().any(|other| other.pid == holder.parent);
    let first = holders.iter().find(|holder| !holder.is_steward && !is_child(holder));
    first.or_else(|| holders.first()).copied()
}

fn holders(lock: FileId) -> Vec<LockHolder> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| holder(pid, lock)).collect()
}

/// Describes the process `pid`, if it runs the shim's program and has the lock's file open.
fn holder(pid: i32, lock: FileId) -> Option<LockHolder> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let program = fs::read_link(directory.join("exe")).ok()?;
    let program = program.file_name()?.to_str()?;
    // A program that was replaced by an upgrade meanwhile.
    if program.strip_suffix(" (deleted)").unwrap_or(program) != PROGRAM {
        return None;
    }
    let mut open = fs::read_dir(directory.join("fd")).ok()?.flatten();
    open.find(|entry| fs::metadata(entry.path()).is_ok_and(|found| FileId::of(&found) == lock))?;
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(LockHolder {
        pid,
        parent: field("PPid:")?.parse().ok()?,
        is_steward: field("Name:") == Some(STEWARD),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_is_the_parent_of_the_others() {
        let holder = |pid, parent, is_steward| LockHolder { pid, parent, is_steward };
        let (shim, steward, jailer) = (holder(10, 1, false), holder(11, 10, true), holder(12, 10, false));
        assert_eq!(shim_of(&[steward, jailer, shim]), Some(shim));
        assert_eq!(shim_of(&[steward]), Some(steward), "a steward that hangs");
        // The steward of a shim that was killed has another parent by now.
        assert_eq!(shim_of(&[holder(11, 1, true), holder(12, 1, false)]), Some(holder(12, 1, false)));
        assert_eq!(shim_of(&[]), None);
    }

    #[test]
    fn nobody_else_who_has_the_lock_open_is_taken_for_a_shim() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!signal_shim(file.path(), Signal::KILL).unwrap());
    }
}

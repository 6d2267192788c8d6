//! A guest of eleven instructions, run with a time limit.
//!
//! `/dev/kvm` may exist, open and answer `KVM_CREATE_VM` on hosts where a vCPU then hangs. So the question put
//! to the host is the one that matters: does a vCPU execute code and reach a device?

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use boxlite_types::{Doing, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

/// QEMU's exit status after the trial's firmware wrote 0x2a to the exit port: `(0x2a << 1) | 1`.
const RAN: i32 = 0x55;

/// Why the trial's guest did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(super) enum TrialError {
    /// It did nothing for so many seconds.
    #[error("a trial guest hung for {0} s")]
    Hung(u64),
    /// QEMU or the accelerator refused, for this reason.
    #[error("{0}")]
    Failed(String),
}

/// Tries whether KVM runs guest code under the QEMU at `qemu`.
pub(super) fn run_under_kvm(qemu: &Path, limit: Duration) -> std::result::Result<(), TrialError> {
    run(qemu, "kvm", limit)
}

/// Runs the trial's firmware under `accelerator`; an error says what happened instead of its exit.
fn run(qemu: &Path, accelerator: &str, limit: Duration) -> std::result::Result<(), TrialError> {
    let hung = TrialError::Hung(limit.as_secs());
    let (status, said) = exit_of(qemu, accelerator, limit)
        .map_err(|error| TrialError::Failed(error.chain().to_string()))?
        .ok_or(hung)?;
    if status.code() != Some(RAN) {
        let said = said.lines().next().unwrap_or("nothing").trim();
        return Err(TrialError::Failed(format!("a trial guest did not run ({status}); QEMU said: {said}")));
    }
    Ok(())
}

/// How QEMU exited within `limit`, and what it said.
fn exit_of(qemu: &Path, accelerator: &str, limit: Duration) -> Result<Option<(ExitStatus, String)>> {
    let rom = rom_in_memory()?;
    let mut child = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "16"])
        .args(["-machine", "microvm,isa-serial=off", "-accel", accelerator])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-bios")
        .arg(format!("/proc/{}/fd/{}", std::process::id(), rom.as_raw_fd()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing("starting", qemu)?;
    let in_time = wait_for_end(&child, limit);
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().doing("waiting for", qemu)?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    Ok(in_time.then_some((status, said)))
}

/// Waits until the process has ended; whether that was within `limit`.
fn wait_for_end(child: &std::process::Child, limit: Duration) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) else { return false };
    let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return false;
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// 64 KiB of firmware that ends at the reset vector: `mov al, 0x2a; out 0xf4, al; hlt; jmp -3`.
fn rom_in_memory() -> Result<OwnedFd> {
    let mut rom = vec![0xf4_u8; 64 * 1024];
    let reset = rom.len() - 16;
    rom[reset..reset + 7].copy_from_slice(&[0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
    let memory = rustix::fs::memfd_create("boxlite-trial", rustix::fs::MemfdFlags::CLOEXEC)
        .doing("creating", "a memory file")?;
    let mut file = File::from(memory);
    file.write_all(&rom).doing("filling", "a memory file")?;
    Ok(file.into())
}

/// The first line of `qemu --version`.
pub(super) fn version(qemu: &Path) -> Result<String> {
    let output = Command::new(qemu).arg("--version").stdin(Stdio::null()).output().doing("running", qemu)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => {
            Err(Error::unsupported(format!("{} --version failed: {}", qemu.display(), output.status))
                .at(qemu))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: a ROM whose first byte is `hlt` made this fail by its time limit.
    #[test]
    fn the_trial_runs_under_an_accelerator_that_works_and_fails_under_one_that_does_not() {
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        if !boxlite_testkit::oracle::require(qemu) {
            return;
        }
        run(qemu, "tcg", Duration::from_secs(60)).unwrap();
        let error = run(qemu, "no-such-accelerator", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("did not run"), "{error}");
    }
}

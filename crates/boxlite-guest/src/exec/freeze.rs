//! Holds the root filesystem still while the host takes a snapshot of its disk.
//!
//! A child does it, since writing out the filesystem may take long. The agent thaws once more when the child has been
//! reaped, so that killing the child cannot leave the filesystem frozen.
//!
//! # The pause
//! `FIFREEZE` holds writers back first, waits three times for a grace period of the kernel's RCU, and then writes out what is
//! unwritten. So the kernel is told to hurry its grace periods, of which each takes 10 ms and more otherwise, and the filesystem is
//! written out before, again and again until little has come meanwhile. Somebody who writes all the time would dirty memory
//! faster than a disk takes it: the kernel is told to hold writers back to the disk's pace once so much is unwritten, as it always
//! does with more of it. [`KernelPace`] has what is changed, and puts it back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use boxlite_proto::OpEvent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::op_error::OpError;
use crate::linux;

/// The longest time for which a host may hold a filesystem still.
const MAX_FREEZE: Duration = Duration::from_secs(30);

/// How often the filesystem is written out before it is frozen: a box that writes all the time is never done.
const MAX_PASSES: u32 = 4;
/// A pass that takes less has left little to write.
const QUICK_PASS: Duration = Duration::from_millis(10);

/// One of the kernel's settings that is another while a freeze is prepared and lasts.
struct PaceSetting {
    file: &'static str,
    /// The same as a share, which is in use where `file` says 0.
    share: Option<&'static str>,
    meanwhile: &'static str,
}

const SETTINGS: [PaceSetting; 3] = [
    PaceSetting {
        file: "/proc/sys/vm/dirty_background_bytes",
        share: Some("/proc/sys/vm/dirty_background_ratio"),
        meanwhile: "262144",
    },
    PaceSetting {
        file: "/proc/sys/vm/dirty_bytes",
        share: Some("/proc/sys/vm/dirty_ratio"),
        meanwhile: "524288",
    },
    PaceSetting { file: "/sys/kernel/rcu_expedited", share: None, meanwhile: "1" },
];

/// The settings that the guest's kernel has without us.
pub(super) struct KernelPace([Option<(&'static str, String)>; SETTINGS.len()]);

impl KernelPace {
    /// The present settings.
    pub(super) fn present() -> Self {
        let value = |file: &'static str| Some((file, fs::read_to_string(file).ok()?.trim().to_owned()));
        Self(SETTINGS.map(|PaceSetting { file, share, .. }| match (value(file)?, share) {
            ((_, bytes), Some(share)) if bytes == "0" => value(share),
            (present, _) => Some(present),
        }))
    }

    /// Prepares the kernel for a freeze. Where it does not take a setting, the pause is longer.
    fn change() {
        for PaceSetting { file, meanwhile, .. } in SETTINGS {
            let _ = fs::write(file, meanwhile);
        }
    }

    /// Puts the settings back to these.
    pub(super) fn restore(self) {
        for (file, value) in self.0.into_iter().flatten() {
            if let Err(error) = fs::write(file, value) {
                linux::kernel_log(&format!("writing {file} failed: {error}"));
            }
        }
    }
}

/// Freezes the root filesystem, says so by one byte on standard output, and thaws it when standard input ends or the time
/// is over.
pub(super) fn hold(id: u32, timeout_ms: u64) -> Result<OpEvent, OpError> {
    let root = File::open("/").map_err(|e| OpError::std_io("opening the box's disk", &e))?;
    write_out(&root)?;
    let began = Instant::now();
    linux::freeze(root.as_fd()).map_err(|e| OpError::std_io("freezing the box's disk", &e))?;
    let told = io::stdout().write_all(b"f").and_then(|()| io::stdout().flush());
    let ended = told.is_ok() && input_ends_by(began + Duration::from_millis(timeout_ms).min(MAX_FREEZE));
    let thawed = linux::thaw(root.as_fd());
    let frozen_us = began.elapsed().as_micros() as u64;
    Ok(OpEvent::Thawed { id, frozen_us, expired: !ended || thawed.is_err() })
}

/// Writes out what is to be written before anybody has to wait for it, and again what has come meanwhile.
fn write_out(root: &File) -> Result<(), OpError> {
    KernelPace::change();
    for _ in 0..MAX_PASSES {
        let began = Instant::now();
        rustix::fs::syncfs(root).map_err(|e| OpError::io("writing out the box's disk", &e))?;
        if began.elapsed() < QUICK_PASS {
            break;
        }
    }
    Ok(())
}

/// Thaws the root filesystem if it is frozen. Writes nothing, and opens a directory that is always in memory.
pub(super) fn thaw_root() {
    if let Ok(root) = File::open("/") {
        // One that is not frozen cannot be thawed.
        let _ = linux::thaw(root.as_fd());
    }
}

/// Waits for the end of standard input; false when that has not come by `deadline`.
fn input_ends_by(deadline: Instant) -> bool {
    let input = io::stdin();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&input, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => match rustix::io::read(&input, &mut [0; 64]) {
                Ok(0) => return true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            },
        }
    }
}

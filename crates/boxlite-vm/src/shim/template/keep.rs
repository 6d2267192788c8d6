//! Keeping what a guest has become while it waits for its box.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use boxlite_home::Home;
use boxlite_home::admission::SpaceGuard;
use boxlite_home::durable::{Staged, allocated};
use boxlite_types::{Doing, Error, ErrorKind, Result};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::restore::share_memory;
use crate::shim::launch::TemplateKeep;
use crate::shim::vmm::qmp::{Qmp, QmpError};

/// The name under which QEMU knows the file that it writes its state to.
const STATE: &str = "template";

/// How long the guest may be paused for it.
const KEEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory looked at in one go, in bytes.
const STRETCH: usize = 1 << 20;

const PAGE: usize = 4096;

/// A template that is complete and not durable yet.
#[derive(Debug)]
pub(crate) struct Kept {
    staged: Staged,
    path: PathBuf,
}

impl Kept {
    /// Makes it durable and others find it. Blocks for as long as the disk takes.
    pub(crate) fn publish(self) -> Result<()> {
        self.staged.publish(&self.path).map(drop)
    }
}

/// A template that is being made, by the process that has the home.
#[derive(Debug)]
pub(crate) struct Staging {
    staged: Staged,
    path: PathBuf,
    memory: File,
    guard: SpaceGuard,
    deadline: Instant,
}

/// Makes room for a template of the guest whose memory is all of the memory file `memory`. Returns the file to which QEMU is to
/// write the state of the guest's devices.
///
/// `None` while another box keeps the same template.
///
/// # Errors
/// `ResourceExhausted` where there is no room; `Io` where it cannot be made. Nothing is left of it then.
pub(crate) fn stage(keep: TemplateKeep, home: &Home, memory: File) -> Result<Option<(Staging, File)>> {
    let name = keep.path.file_name().and_then(|name| name.to_str()).unwrap_or("template");
    let Some(staged) = Staged::take_over(&home.tmp(), &format!("{name}.partial"))? else { return Ok(None) };
    let doing = "keeping a template at";
    // Somebody may have been done with it in between.
    if std::fs::metadata(&keep.path).is_ok_and(|found| found.len() > 0) {
        return Ok(None);
    }
    let deadline = Instant::now() + KEEP_TIMEOUT;
    let guard = SpaceGuard::under(home, keep.room)?;
    let found = memory.metadata().doing(doing, &keep.path)?;
    guard.check_before(allocated(&found))?;
    let mut state = staged.file().try_clone().doing(doing, &keep.path)?;
    state.set_len(0).and_then(|()| state.seek(SeekFrom::Start(found.len()))).doing(doing, &keep.path)?;
    Ok(Some((Staging { staged, path: keep.path, memory, guard, deadline }, state)))
}

impl Staging {
    /// Copies the guest's memory, beside which the state of its devices has been written. Blocks.
    ///
    /// # Errors
    /// `ResourceExhausted` where there is no room; `Busy` where it takes too long; `Io` where writing failed. Nothing is left
    /// of it then.
    pub(crate) fn copy_memory(self) -> Result<Kept> {
        copy_memory(&self.memory, self.staged.file(), &self.guard, self.deadline)
            .map_err(|error| error.while_doing("keeping a template"))?;
        Ok(Kept { staged: self.staged, path: self.path })
    }
}

/// Has the QEMU behind `qmp` pause the guest and write to `state` all that is not its memory; the caller has it run on afterwards,
/// whatever came of it.
///
/// `migrated` receives the result of QEMU's part.
///
/// # Errors
/// `Busy` where it takes too long; `Unsupported` where QEMU does not do it.
pub(crate) async fn tell_state(qmp: &Qmp, state: &File, migrated: oneshot::Receiver<bool>) -> Result<()> {
    match tokio::time::timeout(KEEP_TIMEOUT, write_state(qmp, state, migrated)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(Error::unsupported("QEMU did not tell the state of its devices").because(error))
        }
        Err(_) => {
            let _ = qmp.execute("migrate_cancel", Value::Null).await;
            Err(late())
        }
    }
}

/// Has QEMU pause the guest and write all that is not its memory to `state`, from where that stands.
async fn write_state(
    qmp: &Qmp,
    state: &File,
    migrated: oneshot::Receiver<bool>,
) -> std::result::Result<(), QmpError> {
    share_memory(qmp).await?;
    qmp.give(STATE, state.as_fd()).await?;
    qmp.execute("migrate", json!({ "uri": format!("fd:{STATE}") })).await?;
    match migrated.await {
        Ok(true) => settle(qmp).await,
        Ok(false) => Err(QmpError::Refused { command: "migrate", reason: "it failed on the way".into() }),
        Err(_) => Err(QmpError::Gone { command: "migrate" }),
    }
}

/// Waits until QEMU has really done with it: before that the guest cannot be told to run on.
async fn settle(qmp: &Qmp) -> std::result::Result<(), QmpError> {
    while qmp.execute("query-status", Value::Null).await?["status"] != "postmigrate" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn late() -> Error {
    let message =
        format!("keeping a template took longer than {} s and was given up", KEEP_TIMEOUT.as_secs());
    Error::new(ErrorKind::Busy, message)
}

/// Copies every page that is not all zeros to the same place of `to`.
fn copy_memory(from: &File, to: &File, guard: &SpaceGuard, deadline: Instant) -> Result<()> {
    let doing = "copying the guest's memory to";
    let place = guard.path();
    let (mut buffer, mut written) = (vec![0; STRETCH], 0);
    let mut at = 0;
    while let Some((begin, end)) = data_after(from, at).doing(doing, place)? {
        at = begin;
        while at < end {
            let length = STRETCH.min((end - at) as usize);
            from.read_exact_at(&mut buffer[..length], at).doing(doing, place)?;
            for stretch in stretches(&buffer[..length]) {
                to.write_all_at(&buffer[stretch.clone()], at + stretch.start as u64).doing(doing, place)?;
                written += stretch.len() as u64;
            }
            guard.check_streaming(written)?;
            if Instant::now() > deadline {
                return Err(late());
            }
            at += length as u64;
        }
    }
    Ok(())
}

/// The first range at or after `at` that is not a hole.
fn data_after(file: &File, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some((begin, rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ranges of `bytes` between pages that are all zeros.
fn stretches(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if *page == [0; PAGE][..page.len()] {
            continue;
        }
        let start = index * PAGE;
        match found.last_mut() {
            Some(last) if last.end == start => last.end += page.len(),
            _ => found.push(start..start + page.len()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_with_something_in_them_are_copied() {
        let mut bytes = vec![0; 5 * PAGE + 10];
        (bytes[PAGE], bytes[2 * PAGE + 7], bytes[5 * PAGE + 9]) = (1, 2, 3);
        assert_eq!(stretches(&bytes), [PAGE..3 * PAGE, 5 * PAGE..5 * PAGE + 10]);
        assert!(stretches(&bytes[..PAGE]).is_empty());
    }
}

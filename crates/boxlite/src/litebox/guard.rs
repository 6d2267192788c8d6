//! The right to change a box's state: its record, read and written under its state lock.
//!
//! # Locking
//! `state.lock` is held for the length of one change, by the process that makes it. `shim.lock` is held while the box
//! runs, by its shim and QEMU, which inherit it. The former is taken first; the latter only under it.

use std::time::{Duration, Instant};

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_types::{BoxRecord, Error, ErrorKind, Phase, Result};

use super::Observed;
use crate::context::LocalContext;

/// How long the processes of an earlier run may take to exit once they are told to.
pub(super) const LAST_RUN_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The exclusive right to change one box, against every other process.
#[derive(Debug)]
pub(crate) struct BoxGuard {
    pub(crate) record: BoxRecord,
    pub(crate) paths: BoxPaths,
    _state_lock: Lock,
}

impl BoxGuard {
    /// Acquires the box `id` unless another process is changing its state.
    pub(crate) fn try_acquire(context: &LocalContext, id: &str) -> Result<Option<Self>> {
        let paths = context.home.of_box(id);
        let lock = Lock::try_exclusive(&paths.state_lock())
            .map_err(|error| without_directory(context, id, error))?;
        lock.map(|lock| Self::with_lock(context, id, lock)).transpose()
    }

    /// The record is read under the lock: it may have changed, or gone, since the box was looked for.
    fn with_lock(context: &LocalContext, id: &str, state_lock: Lock) -> Result<Self> {
        let record = context.store.find_box(id)?;
        Ok(Self { record, paths: context.home.of_box(id), _state_lock: state_lock })
    }

    /// Observes the box, and brings the record up to date where the last run has ended.
    pub(crate) fn settle(&mut self, context: &LocalContext) -> Result<Observed> {
        let observed = Observed::of(&context.home, &self.record)?;
        if let Observed::Resting(phase) = &observed
            && *phase != self.record.phase
        {
            self.enter(context, phase.clone())?;
        }
        Ok(observed)
    }

    /// Takes the lock that says that the box runs; see [`shim_lock`].
    pub(crate) fn shim_lock(&self) -> Result<Lock> {
        shim_lock(&self.paths, &self.record.name)
    }

    /// Records a new phase durably.
    pub(crate) fn enter(&mut self, context: &LocalContext, phase: Phase) -> Result<()> {
        self.record.phase = phase;
        context.store.update_box(&self.record)
    }
}

/// Takes the lock that says that the box `name` runs.
///
/// Observers hold it for an instant, and the processes of the last run until they have exited; a process that keeps it
/// longer belongs to a run that no record names.
///
/// # Errors
/// `Busy` when it is held longer than that.
pub(super) fn shim_lock(paths: &BoxPaths, name: &str) -> Result<Lock> {
    let path = paths.shim_lock();
    let began = Instant::now();
    loop {
        if let Some(lock) = Lock::try_exclusive(&path)? {
            return Ok(lock);
        }
        if began.elapsed() > LAST_RUN_EXIT_TIMEOUT {
            let message = format!(
                "processes of an earlier run of box {name} still hold {}; end them first",
                path.display()
            );
            return Err(Error::new(ErrorKind::Busy, message).at(path));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Explains why a box's state lock cannot be taken: the box was removed meanwhile, or lost its directory.
fn without_directory(context: &LocalContext, id: &str, error: Error) -> Error {
    let paths = context.home.of_box(id);
    if error.kind() != ErrorKind::Io || paths.root().is_dir() {
        return error;
    }
    if let Err(gone) = context.store.find_box(id) {
        return gone;
    }
    let root = paths.root().display();
    let what = match paths.root().symlink_metadata() {
        Ok(_) => format!("{root}, where the box's directory was, is something else now"),
        Err(_) => format!("the box has lost its directory {root}"),
    };
    Error::corrupt(format!("{what}; `boxlite rm -f` removes its record")).at(paths.root()).because(error)
}

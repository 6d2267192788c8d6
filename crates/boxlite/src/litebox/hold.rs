//! The right to change a box's state: its record, read and written under its state lock.

use std::time::{Duration, Instant};

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_types::{BoxRecord, Error, ErrorKind, Phase, Result};

use super::Observed;
use crate::site::Site;

/// How long the processes of an earlier run may take to go once they are told to.
const LAST_RUN_LEAVES: Duration = Duration::from_secs(5);

/// One box, held exclusively against every other process for the length of one change of state.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) record: BoxRecord,
    pub(crate) paths: BoxPaths,
    _state_lock: Lock,
}

impl Held {
    /// Holds the box `id` unless another process is changing its state.
    pub(crate) fn try_take(site: &Site, id: &str) -> Result<Option<Self>> {
        let paths = site.home.of_box(id);
        let lock =
            Lock::try_exclusive(&paths.state_lock()).map_err(|error| without_directory(site, id, error))?;
        lock.map(|lock| Self::with_lock(site, id, lock)).transpose()
    }

    /// The record is read under the lock: it may have changed, or gone, since the box was looked for.
    fn with_lock(site: &Site, id: &str, state_lock: Lock) -> Result<Self> {
        let record = site.store.find_box(id)?;
        Ok(Self { record, paths: site.home.of_box(id), _state_lock: state_lock })
    }

    /// What the box is doing, with the record brought up to date where the last run has ended.
    pub(crate) fn settle(&mut self, site: &Site) -> Result<Observed> {
        let observed = Observed::of(&site.home, &self.record)?;
        if let Observed::Resting(phase) = &observed
            && *phase != self.record.phase
        {
            self.enter(site, phase.clone())?;
        }
        Ok(observed)
    }

    /// Takes the lock that says that the box runs; see [`shim_lock`].
    pub(crate) fn shim_lock(&self) -> Result<Lock> {
        shim_lock(&self.paths, &self.record.name)
    }

    /// Records a new phase durably.
    pub(crate) fn enter(&mut self, site: &Site, phase: Phase) -> Result<()> {
        self.record.phase = phase;
        site.store.update_box(&self.record)
    }
}

/// Takes the lock that says that the box `name` runs. Others hold it for an instant to look at it, and the processes of
/// the last run while they go; whoever keeps it longer is a run that nobody recorded.
///
/// # Errors
/// `Busy` when it is held for longer.
pub(super) fn shim_lock(paths: &BoxPaths, name: &str) -> Result<Lock> {
    let path = paths.shim_lock();
    let began = Instant::now();
    loop {
        if let Some(lock) = Lock::try_exclusive(&path)? {
            return Ok(lock);
        }
        if began.elapsed() > LAST_RUN_LEAVES {
            let message = format!(
                "processes of an earlier run of box {name} still hold {}; end them first",
                path.display()
            );
            return Err(Error::new(ErrorKind::Busy, message).at(path));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What it means that a box's state lock cannot be taken: it was removed meanwhile, or lost its directory.
fn without_directory(site: &Site, id: &str, error: Error) -> Error {
    let paths = site.home.of_box(id);
    if error.kind() != ErrorKind::Io || paths.root().is_dir() {
        return error;
    }
    if let Err(gone) = site.store.find_box(id) {
        return gone;
    }
    let root = paths.root().display();
    Error::corrupt(format!("the box has lost its directory {root}; `boxlite rm -f` removes its record"))
        .at(paths.root())
        .because(error)
}

//! The shim's knowledge of its box's health, shown to whoever looks at the box.
//!
//! As with a pause, the room is taken before the box runs, and what is shown concerns one run and is not durable. The probes'
//! output is no part of it: the shim tells that to those who ask.

use std::path::Path;

use boxlite_home::BoxPaths;
use boxlite_home::durable::Slot;
use boxlite_types::{Error, Health, HealthStatus, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The health of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShownHealth {
    run_id: String,
    health: Health,
}

/// Returns the health that the shim of run `run_id` of the box at `paths` shows, without the probes; `None` while it shows none.
///
/// # Errors
/// `Corrupt` for a file that no shim writes.
pub fn read_health(paths: &BoxPaths, run_id: &str) -> Result<Option<Health>> {
    let path = paths.health();
    let Some(contents) = Slot::read(&path)? else { return Ok(None) };
    let shown: ShownHealth = serde_json::from_slice(&contents).map_err(|error| {
        Error::corrupt(format!("{} does not say how a box fares", path.display())).at(&path).because(error)
    })?;
    Ok((shown.run_id == run_id).then_some(shown.health))
}

/// The room in which one run shows its health.
#[derive(Debug)]
pub(crate) struct HealthSlot {
    slot: Slot,
    run_id: String,
}

impl HealthSlot {
    /// Takes the room at `path` and forgets what an earlier run showed.
    pub(crate) fn reserve(path: &Path, run_id: &str) -> Result<Self> {
        Ok(Self { slot: Slot::emptied(path)?, run_id: run_id.to_owned() })
    }

    /// Shows the health of the run.
    pub(crate) fn show(&self, status: HealthStatus, failing_streak: u32, since: Timestamp) -> Result<()> {
        let health = Health { status, failing_streak, since, log: Vec::new() };
        let text = serde_json::to_vec(&ShownHealth { run_id: self.run_id.clone(), health })
            .map_err(|error| Error::invalid("a box's health does not serialise").because(error))?;
        self.slot.write_volatile(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_shown_for_its_own_run() {
        let directory = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(directory.path().to_owned());
        assert_eq!(read_health(&paths, "r1").unwrap(), None);
        let slot = HealthSlot::reserve(&paths.health(), "r1").unwrap();
        assert_eq!(read_health(&paths, "r1").unwrap(), None);
        slot.show(HealthStatus::Unhealthy, u32::MAX, Timestamp::UNIX_EPOCH).unwrap();
        let health = read_health(&paths, "r1").unwrap().unwrap();
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, u32::MAX));
        assert_eq!(read_health(&paths, "r2").unwrap(), None);
        HealthSlot::reserve(&paths.health(), "r1").unwrap();
        assert_eq!(read_health(&paths, "r1").unwrap(), None);
    }
}

//! How a run of a box ended, published by its shim before it goes.

use std::path::Path;

use boxlite_home::BoxPaths;
use boxlite_home::durable::{SLOT_LEN, Slot};
use boxlite_proto::{ExecFailure, ProcessExit};
use boxlite_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::bounded_text;

/// Longest reason kept, in bytes; an outcome must fit its slot.
const REASON_LIMIT: usize = 1024;

/// The reason of a run whose guest was ended before it had flushed its filesystems.
pub const LOST_WRITES: &str = "unflushed writes were lost";

/// How one run of a box ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run ([`super::LaunchSpec::run_id`]) that ended.
    pub run_id: String,
    /// Milliseconds since the epoch.
    pub at_unix_ms: u64,
    /// The cause of its end.
    pub end: OutcomeCause,
    /// How the main process ended, where it was started and its end was seen.
    pub main: Option<ProcessExit>,
    /// Whether the guest's filesystems were flushed before the virtual machine ended.
    pub flushed: bool,
    /// Processes that the guest's kernel had killed for want of memory when the main process ended.
    #[serde(default)]
    pub memory_kills: u32,
    /// How long after the stop signal the main process was killed because it had not ended; `None` when it was not.
    #[serde(default)]
    pub killed_after_ms: Option<u64>,
    /// For how long nobody had used the box when it was stopped for that; `None` when it was not.
    #[serde(default)]
    pub unused_for_ms: Option<u64>,
    /// Whether the box was asked to stop, by a client, a signal or its own idleness, whatever ended it then.
    #[serde(default)]
    pub asked_to_stop: bool,
}

/// The cause of a run's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeCause {
    /// The main process ended by itself.
    MainExited,
    /// The main process could not be started.
    MainNotStarted {
        /// Why, for programs.
        failure: ExecFailure,
        /// Why, for people.
        message: String,
    },
    /// Somebody stopped the box.
    Stopped,
    /// The box ended as it should, but its guest did not flush its filesystems in time.
    Unflushed,
    /// The virtual machine or its agent failed while the box ran.
    VmCrashed {
        /// One sentence.
        reason: String,
    },
    /// The guest never came up.
    BootFailed {
        /// One sentence.
        reason: String,
        /// Whether another boot of the same guest may well succeed.
        #[serde(default)]
        may_retry: bool,
    },
}

impl Outcome {
    /// The exit code of the run as Docker's users expect it: the main process's own, 126 or 127 when it could not be
    /// started, `None` when the run ended without one.
    pub fn exit_code(&self) -> Option<i32> {
        match (&self.end, self.main) {
            (_, Some(status)) => Some(status.shell_code()),
            (OutcomeCause::MainNotStarted { failure, .. }, None) => Some(failure.exit_code()),
            // The guest and whatever ran in it was killed.
            (OutcomeCause::Unflushed, None) => Some(137),
            _ => None,
        }
    }

    /// The failure's sentence, for ends that are failures.
    pub fn failure(&self) -> Option<&str> {
        match &self.end {
            OutcomeCause::MainNotStarted { message, .. } => Some(message),
            OutcomeCause::VmCrashed { reason } | OutcomeCause::BootFailed { reason, .. } => Some(reason),
            OutcomeCause::Unflushed => Some(LOST_WRITES),
            OutcomeCause::MainExited | OutcomeCause::Stopped => None,
        }
    }

    /// Returns a remark on how the main process ended, unless it was successful.
    pub fn remark(&self) -> Option<String> {
        let unused =
            self.unused_for_ms.map(|unused| format!("idle: nobody used the box for {} s", unused / 1000));
        if self.main.is_some_and(|main| main.shell_code() == 0) {
            return unused;
        }
        let memory = match self.memory_kills {
            0 => None,
            1 => Some("out of memory: the guest's kernel killed a process of the box".to_owned()),
            kills => Some(format!("out of memory: the guest's kernel killed {kills} processes of the box")),
        };
        let stop = self.killed_after_ms.map(|after| {
            format!("killed: the main process had not ended {} s after the stop signal", after / 1000)
        });
        let said: Vec<String> = unused.into_iter().chain(memory).chain(stop).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Reads the outcome of run `run_id` of the box at `paths`.
    ///
    /// `None` while the run lasts, and for good when its shim was killed before it could publish one. The answer is
    /// final once `shim.lock` could be taken.
    pub fn read(paths: &BoxPaths, run_id: &str) -> Result<Option<Self>> {
        let path = paths.outcome();
        let Some(contents) = Slot::read(&path)? else { return Ok(None) };
        let outcome: Self = serde_json::from_slice(&contents).map_err(|error| {
            Error::corrupt(format!("{} is not an outcome", path.display())).at(&path).because(error)
        })?;
        Ok((outcome.run_id == run_id).then_some(outcome))
    }
}

/// The room for one outcome, taken when the run starts so that a full disk cannot swallow it.
#[derive(Debug)]
pub(crate) struct OutcomeSlot(Slot);

impl OutcomeSlot {
    /// Takes the room at `path` and forgets the last run's outcome.
    pub(crate) fn reserve(path: &Path) -> Result<Self> {
        Slot::emptied(path).map(Self)
    }

    /// Publishes durably.
    pub(crate) fn publish(&self, outcome: &Outcome) -> Result<()> {
        let mut outcome = outcome.clone();
        match &mut outcome.end {
            OutcomeCause::VmCrashed { reason }
            | OutcomeCause::BootFailed { reason, .. }
            | OutcomeCause::MainNotStarted { message: reason, .. } => {
                truncate(reason, REASON_LIMIT);
            }
            OutcomeCause::MainExited | OutcomeCause::Stopped | OutcomeCause::Unflushed => {}
        }
        let contents = serde_json::to_vec(&outcome)
            .map_err(|error| Error::bug("an outcome does not serialise").because(error))?;
        self.0.write(&contents)
    }
}

const _: () = assert!(REASON_LIMIT * 2 + 512 < SLOT_LEN);

/// Cuts `text` to at most `limit` bytes, control characters (which JSON would lengthen) becoming spaces.
fn truncate(text: &mut String, limit: usize) {
    *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    bounded_text::cut(text, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(reason: &str) -> Outcome {
        let end = OutcomeCause::VmCrashed { reason: reason.into() };
        Outcome {
            run_id: "r1".into(),
            at_unix_ms: 5,
            end,
            main: None,
            flushed: false,
            memory_kills: 0,
            killed_after_ms: None,
            unused_for_ms: None,
            asked_to_stop: false,
        }
    }

    #[test]
    fn an_outcome_is_read_back_for_its_own_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(dir.path().to_owned());
        assert_eq!(Outcome::read(&paths, "r1").unwrap(), None);
        let slot = OutcomeSlot::reserve(&paths.outcome()).unwrap();
        assert_eq!(Outcome::read(&paths, "r1").unwrap(), None);
        slot.publish(&crashed("it fell")).unwrap();
        assert_eq!(Outcome::read(&paths, "r1").unwrap(), Some(crashed("it fell")));
        assert_eq!(Outcome::read(&paths, "r2").unwrap(), None, "another run's outcome is not this run's");
    }

    #[test]
    fn an_older_shims_outcome_says_nothing_of_a_request() {
        let text = serde_json::to_string(&Outcome { asked_to_stop: true, ..crashed("x") }).unwrap();
        let older = text.replace(",\"asked_to_stop\":true", "");
        assert_ne!(older, text);
        assert_eq!(serde_json::from_str::<Outcome>(&older).unwrap(), crashed("x"));
    }

    #[test]
    fn hostile_reasons_fit_the_slot() {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::new(dir.path().to_owned());
        let slot = OutcomeSlot::reserve(&paths.outcome()).unwrap();
        for reason in ["\u{1}".repeat(5000), "\"\\".repeat(3000), "é".repeat(3000), "\n".repeat(3000)] {
            slot.publish(&crashed(&reason)).unwrap();
            assert!(Outcome::read(&paths, "r1").unwrap().is_some());
        }
    }

    #[test]
    fn exit_codes_follow_docker() {
        let mut outcome = crashed("x");
        assert_eq!(outcome.exit_code(), None);
        outcome.main = Some(ProcessExit::Signal(9));
        assert_eq!(outcome.exit_code(), Some(137));
        outcome.main = None;
        outcome.end = OutcomeCause::MainNotStarted { failure: ExecFailure::NotFound, message: "no".into() };
        assert_eq!(outcome.exit_code(), Some(127));
        outcome.end = OutcomeCause::Unflushed;
        assert_eq!((outcome.exit_code(), outcome.failure()), (Some(137), Some(LOST_WRITES)));
        outcome.main = Some(ProcessExit::Code(3));
        assert_eq!(outcome.exit_code(), Some(3), "the main process's own, where its end was seen");
    }

    #[test]
    fn want_of_memory_is_told_unless_the_run_was_successful() {
        let ended = |main, memory_kills, killed_after_ms| {
            let end = OutcomeCause::MainExited;
            Outcome { end, main: Some(main), memory_kills, killed_after_ms, ..crashed("") }.remark()
        };
        assert_eq!(ended(ProcessExit::Code(0), 3, None), None);
        assert_eq!(ended(ProcessExit::Signal(9), 0, None), None);
        assert!(ended(ProcessExit::Code(1), 2, None).unwrap().starts_with("out of memory: "));
        let both = ended(ProcessExit::Signal(9), 1, Some(2_003)).unwrap();
        assert!(both.contains("killed a process") && both.contains("2 s after the stop signal"), "{both}");
    }
}

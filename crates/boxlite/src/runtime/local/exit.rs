//! The exit status of a run.

use boxlite_types::{BoxRecord, Error, ExitStatus, MainProcess, Phase, Result};

/// The exit status of a main process whose end was not observed, because its virtual machine ended first.
pub(super) const KILLED: i32 = 137;

/// Docker's exit status for a run that the runtime itself, and not the command, broke.
const RUNTIME_FAILED: i32 = 125;

/// The exit status of the last run of a box that is not running and is in `phase`.
///
/// # Errors
/// `Conflict` when it was never started.
pub(super) fn of_phase(record: &BoxRecord, phase: Phase) -> Result<ExitStatus> {
    match phase {
        Phase::Created => Err(Error::conflict(format!("box {} was never started", record.name))),
        Phase::Started { .. } => Err(Error::bug("a resting box is recorded as started")),
        Phase::Ended { outcome, .. } => {
            let unknown = if record.options.main == MainProcess::Idle { 0 } else { KILLED };
            Ok(ExitStatus { code: outcome.exit_code.unwrap_or(unknown), reason: outcome.reason })
        }
        Phase::Failed { exit_code, reason, .. } => {
            Ok(ExitStatus { code: exit_code.unwrap_or(RUNTIME_FAILED), reason: Some(reason) })
        }
    }
}

/// The exit status of the last run of a box that was removed, and its outcome with it.
pub(super) fn of_removed_box() -> ExitStatus {
    ExitStatus { code: KILLED, reason: Some("the box was removed".into()) }
}

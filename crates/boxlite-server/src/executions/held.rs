//! Executions that their boxes hold: begun, found and attached to through any server of the home.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use boxlite::wire::ExecutionCreated;
use boxlite::{
    BoxInfo, Error, ErrorKind, ExecOptions, ExecutionLimit, ExecutionState, HoldTerms, Runtime, SeatOptions,
};

use super::execution::{ExecutionTerms, ServedExecution};
use super::registry::{Executions, unknown};
use super::session::AttachTerms;
use crate::failure::HttpFailure;

/// A command that was begun.
pub(crate) enum BegunExecution {
    /// Its box holds it.
    Held(ExecutionState),
    /// This server holds it; whether its process was started.
    Served(Arc<ServedExecution>, bool),
}

impl BegunExecution {
    /// Returns the answer to its creation.
    pub(crate) fn created(&self) -> ExecutionCreated {
        match self {
            Self::Held(state) => ExecutionCreated {
                execution_id: state.id.clone(),
                started: state.started,
                stdin: state.stdin,
            },
            Self::Served(served, started) => served.created(*started),
        }
    }
}

/// An execution that a request names.
pub(crate) enum FoundExecution {
    /// Its box holds it.
    Held(ExecutionState),
    /// This server holds it, or saw its box go.
    Served(Arc<ServedExecution>),
}

impl Executions {
    /// Begins a command in the running box `of`, with the id that a request has chosen if it did. One that is held there under
    /// that id is not begun again.
    ///
    /// # Errors
    /// 429 when the box holds as many as it may, 503 when this server does.
    pub(crate) async fn begin_in(
        &self,
        runtime: &Runtime,
        of: &BoxInfo,
        options: ExecOptions,
        terms: ExecutionTerms,
        chosen: Option<String>,
    ) -> Result<BegunExecution, HttpFailure> {
        let id = chosen.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let limit = terms.limit.map(|limit| ExecutionLimit { ms: milliseconds(limit), code: None });
        let held_on = HoldTerms { unattended: terms.unattended, limit };
        match runtime.begin_execution(&of.id, &id, options.clone(), held_on).await {
            Ok(state) => {
                let traffic = self.traffic(&of.id);
                let counter = if state.started { &traffic.commands } else { &traffic.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(BegunExecution::Held(state))
            }
            Err(error) if error.kind() == ErrorKind::Busy => {
                Err(HttpFailure::too_many("too_many_executions", error))
            }
            // A box that an older boxlite has started.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let permit = self.take_permit()?;
                let execution = runtime.exec(&of.id, options).await.map_err(HttpFailure::of_running)?;
                let (served, started) = self.begin(permit, of, execution, terms).await?;
                Ok(BegunExecution::Served(served, started))
            }
            Err(error) => Err(HttpFailure::of_running(error)),
        }
    }

    /// Finds the execution `id` of the box that `wanted` means, unless it is hidden.
    pub(crate) async fn find_in(
        &self,
        runtime: &Runtime,
        wanted: &str,
        id: &str,
    ) -> Result<FoundExecution, HttpFailure> {
        if let Some(served) = self.find_own(wanted, id) {
            return if served.is_evicted() {
                Err(unknown(wanted, id))
            } else {
                Ok(FoundExecution::Served(served))
            };
        }
        match runtime.execution(wanted, id).await {
            Ok(state) if !state.hidden && !state.released => Ok(FoundExecution::Held(state)),
            Ok(_) => Err(unknown(wanted, id)),
            Err(error) => Err(not_held(error, wanted, id)),
        }
    }

    /// Finds the execution `id` of the box that `wanted` means for a client that wants to attach, which a request to kill it
    /// may have overtaken; one that the box holds is attached to.
    ///
    /// # Errors
    /// 409 when another client is attached.
    pub(crate) async fn attach_in(
        &self,
        runtime: &Runtime,
        wanted: &str,
        id: &str,
        terms: AttachTerms,
    ) -> Result<Arc<ServedExecution>, HttpFailure> {
        if let Some(served) = self.find_own(wanted, id) {
            return Ok(served);
        }
        let of = runtime.inspect(wanted).await?;
        let resumes = terms.received.is_some();
        let options =
            SeatOptions { from: terms.received, replace: resumes, resumes, stdin: terms.with_stdin };
        let attached = runtime
            .attach_execution(&of.id, id, options)
            .await
            .map_err(|error| not_held(error, wanted, id))?;
        let traffic = self.traffic(&of.id);
        let served = ServedExecution::of_held(attached, (of.id, of.name), traffic);
        self.insert(&served);
        Ok(served)
    }
}

/// Returns the answer to a request whose execution the box did not find.
fn not_held(error: Error, wanted: &str, id: &str) -> HttpFailure {
    match error.kind() {
        // Nor does a box hold any that an older boxlite has started.
        ErrorKind::Unsupported => unknown(wanted, id),
        _ => HttpFailure::of_running(error),
    }
}

fn milliseconds(limit: Duration) -> u64 {
    limit.as_millis().try_into().unwrap_or(u64::MAX)
}

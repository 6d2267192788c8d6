//! All executions of this server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxlite::{BoxInfo, Error, Execution, ReapAction, reap_action};
use tokio::time::{Instant, timeout};

use super::execution::{ExecutionTerms, ServedExecution, Traffic};
use crate::failure::HttpFailure;

/// Executions that run or hold output that no client has fetched yet.
pub(crate) const MAX_EXECUTIONS: usize = 1024;
/// Ended executions whose output was fetched, kept for their status.
const MAX_ENDED: usize = 16_384;

/// How long unfetched output is safe: its client may be about to attach or to come back.
const UNFETCHED_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a box may take to accept a signal from the reaper; shorter than the time until the next signal.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(10);

/// One of [`MAX_EXECUTIONS`] permits, for a command that is about to start; returned on drop.
pub(crate) struct ExecutionPermit(Arc<AtomicUsize>);

impl Drop for ExecutionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The executions, and the counters of each box.
#[derive(Default)]
pub(crate) struct Executions {
    /// Permits of commands that are still starting. Changed with `served` locked when a command moves there.
    starting: Arc<AtomicUsize>,
    served: Mutex<HashMap<String, Arc<ServedExecution>>>,
    traffic: Mutex<HashMap<String, Arc<Traffic>>>,
}

impl Executions {
    /// Takes a permit for a command, or refuses when the server is at its limit.
    pub(crate) fn take_permit(&self) -> Result<ExecutionPermit, HttpFailure> {
        self.take_permit_at(Instant::now())
    }

    fn take_permit_at(&self, now: Instant) -> Result<ExecutionPermit, HttpFailure> {
        let mut executions = self.served();
        let heavy = executions.values().filter(|served| is_heavy(served)).count();
        if heavy + self.starting.load(Ordering::Relaxed) >= MAX_EXECUTIONS {
            // The oldest output that no client fetched makes room for the new command.
            let oldest = executions
                .values()
                .filter(|served| is_heavy(served))
                .filter_map(|served| Some((left_since(served)?, served.id.clone())))
                .min()
                .filter(|(since, _)| now.duration_since(*since) > UNFETCHED_TIMEOUT);
            let Some((_, id)) = oldest else {
                return Err(HttpFailure::overloaded(format!(
                    "this server already runs {MAX_EXECUTIONS} commands, its limit"
                )));
            };
            executions.remove(&id);
        }
        self.starting.fetch_add(1, Ordering::Relaxed);
        Ok(ExecutionPermit(Arc::clone(&self.starting)))
    }

    /// Takes over an execution and waits until its process runs; false when it could not be started.
    pub(crate) async fn begin(
        &self,
        permit: ExecutionPermit,
        of: &BoxInfo,
        execution: Execution,
        terms: ExecutionTerms,
    ) -> Result<(Arc<ServedExecution>, bool), HttpFailure> {
        let traffic = self.traffic(&of.id);
        let named = (of.id.clone(), of.name.clone());
        // Asked for here: a short command may have ended, and let go of its control, before the answer.
        let control = Arc::clone(&execution.control);
        let served = ServedExecution::start(execution, named, terms, Arc::clone(&traffic));
        {
            let mut executions = self.served();
            executions.insert(served.id.clone(), Arc::clone(&served));
            drop(permit);
        }
        match control.started().await {
            Ok(started) => {
                let counter = if started { &traffic.commands } else { &traffic.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(limit) = terms.limit {
                    served.limit(limit);
                }
                Ok((served, started))
            }
            Err(error) => {
                traffic.failed.fetch_add(1, Ordering::Relaxed);
                self.forget(&served);
                Err(HttpFailure::of_running(error))
            }
        }
    }

    /// Finds the execution `id` of the box that `wanted` (a name, an id or the beginning of one) means.
    #[cfg(test)]
    pub(crate) fn find(&self, wanted: &str, id: &str) -> Result<Arc<ServedExecution>, HttpFailure> {
        let served = self.find_for_client(wanted, id)?;
        if served.is_evicted() { Err(unknown(wanted, id)) } else { Ok(served) }
    }

    fn find_for_client(&self, wanted: &str, id: &str) -> Result<Arc<ServedExecution>, HttpFailure> {
        let found = self.served().get(id).cloned();
        let of_box = |served: &Arc<ServedExecution>| {
            served.box_name == wanted || (!wanted.is_empty() && served.box_id.starts_with(wanted))
        };
        found.filter(of_box).filter(|served| !served.is_released()).ok_or_else(|| unknown(wanted, id))
    }

    /// Finds the execution `id` of the box that `wanted` means, where nobody else than this server knows of it.
    pub(super) fn find_own(&self, wanted: &str, id: &str) -> Option<Arc<ServedExecution>> {
        self.find_for_client(wanted, id).ok().filter(|served| !served.is_held())
    }

    /// Keeps an execution that a client is attached to through this server.
    pub(super) fn insert(&self, served: &Arc<ServedExecution>) {
        self.served().insert(served.id.clone(), Arc::clone(served));
    }

    /// Drops an execution whose client has left, unless nobody else can say how it ended.
    pub(crate) fn leave_to_box(&self, served: &Arc<ServedExecution>) {
        let mut executions = self.served();
        let is_this = executions.get(&served.id).is_some_and(|found| Arc::ptr_eq(found, served));
        if is_this && (served.is_held() || served.is_unseated()) {
            executions.remove(&served.id);
        }
    }

    /// Drops an execution; an attached client stays until its end.
    pub(crate) fn forget(&self, served: &ServedExecution) {
        self.served().remove(&served.id);
    }

    /// Returns the counters of the box's commands.
    pub(crate) fn traffic(&self, box_id: &str) -> Arc<Traffic> {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(traffic.entry(box_id.to_owned()).or_default())
    }

    /// Drops the counters of a removed box.
    pub(crate) fn forget_box(&self, box_id: &str) {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).remove(box_id);
    }

    /// Returns the boxes that have counters.
    pub(crate) fn counted_boxes(&self) -> Vec<String> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Returns how many executions run now.
    pub(crate) fn running(&self) -> usize {
        self.served().values().filter(|served| served.outcome().is_none() && !served.is_released()).count()
    }

    /// Acts on executions that no client has been attached to for long; called every few seconds.
    ///
    /// It waits for no box: a box that does not accept a signal must not hold up the executions of others.
    pub(crate) fn reap(&self, last: Instant, now: Instant) {
        let executions: Vec<Arc<ServedExecution>> = self.served().values().cloned().collect();
        for served in executions {
            if served.is_released() {
                self.forget(&served);
                continue;
            }
            if served.is_held() {
                // Its box decides.
                continue;
            }
            let since = |at: Instant| at.saturating_duration_since(served.began);
            let ended = served.outcome().map(|(_, at)| since(at));
            let left = served.unattended_since().map(since);
            match reap_action(served.terms.unattended, left, ended, since(last), since(now)) {
                ReapAction::Keep => {}
                ReapAction::Signal(signal) => {
                    let taken = async move { timeout(SIGNAL_TIMEOUT, served.signal(signal)).await };
                    tokio::spawn(taken);
                }
                ReapAction::Drop => {
                    served.release();
                    self.forget(&served);
                }
            }
        }
        self.drop_surplus();
    }

    fn drop_surplus(&self) {
        let mut executions = self.served();
        let mut ended: Vec<(Instant, String)> = executions
            .values()
            .filter(|served| !is_heavy(served))
            .filter_map(|served| served.outcome().map(|(_, at)| (at, served.id.clone())))
            .collect();
        ended.sort();
        for (_, id) in ended.iter().rev().skip(MAX_ENDED) {
            executions.remove(id);
        }
    }

    fn served(&self) -> MutexGuard<'_, HashMap<String, Arc<ServedExecution>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn unknown(wanted: &str, id: &str) -> HttpFailure {
    Error::not_found(format!("there is no execution {id:?} of box {wanted:?}")).into()
}

/// Returns since when it has been over without a client.
fn left_since(served: &ServedExecution) -> Option<Instant> {
    let (_, ended) = served.outcome()?;
    Some(served.unattended_since()?.max(ended))
}

/// Tells whether it holds more than its status.
fn is_heavy(served: &Arc<ServedExecution>) -> bool {
    !served.is_released() && (served.outcome().is_none() || !served.buffer.is_empty())
}

#[cfg(test)]
pub(super) mod tests;

//! All executions of this server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxlite::{BoxInfo, Error, Execution};
use tokio::time::{Instant, timeout};

use super::command::{Abandoned, Command, Traffic};
use super::reaper::{Fate, fate};
use crate::failure::Failure;

/// Executions that run, or whose output nobody has fetched yet.
pub(crate) const MAX_COMMANDS: usize = 1024;
/// Ended executions whose output was fetched, kept to be asked for their status.
const MAX_ENDED: usize = 16_384;

/// How long output that nobody fetched is safe: its client may be about to attach, or to come back.
const UNFETCHED: Duration = Duration::from_secs(60);

/// How long a box may take to take a signal that the reaper sends; the next, harder one comes later than that.
const TAKES_SIGNAL: Duration = Duration::from_secs(10);

/// A place among [`MAX_COMMANDS`] for a command that is about to begin; dropping it gives it back.
pub(crate) struct Room(Arc<AtomicUsize>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The executions, and what was counted of each box's.
#[derive(Default)]
pub(crate) struct Executions {
    /// Rooms that are taken by commands not among these yet; changed with these locked when a command moves in.
    beginning: Arc<AtomicUsize>,
    commands: Mutex<HashMap<String, Arc<Command>>>,
    traffic: Mutex<HashMap<String, Arc<Traffic>>>,
}

impl Executions {
    /// Takes room for a command, or refuses when as much is going on as this server takes on.
    pub(crate) fn take_room(&self) -> Result<Room, Failure> {
        self.take_room_at(Instant::now())
    }

    fn take_room_at(&self, now: Instant) -> Result<Room, Failure> {
        let mut commands = self.commands();
        let heavy = commands.values().filter(|command| is_heavy(command)).count();
        if heavy + self.beginning.load(Ordering::Relaxed) >= MAX_COMMANDS {
            // Output that nobody came for makes room for a command that somebody wants.
            let oldest = commands
                .values()
                .filter(|command| is_heavy(command))
                .filter_map(|command| Some((left_since(command)?, command.id.clone())))
                .min()
                .filter(|(since, _)| now.duration_since(*since) > UNFETCHED);
            let Some((_, id)) = oldest else {
                return Err(Failure::overloaded(format!(
                    "this server already runs {MAX_COMMANDS} commands, its limit"
                )));
            };
            commands.remove(&id);
        }
        self.beginning.fetch_add(1, Ordering::Relaxed);
        Ok(Room(Arc::clone(&self.beginning)))
    }

    /// Takes over an execution and waits until its process runs; false when it could not be run.
    pub(crate) async fn begin(
        &self,
        room: Room,
        of: &BoxInfo,
        execution: Execution,
        abandoned: Abandoned,
        limit: Option<Duration>,
    ) -> Result<(Arc<Command>, bool), Failure> {
        let traffic = self.traffic(&of.id);
        let named = (of.id.clone(), of.name.clone());
        let command = Command::start(execution, named, abandoned, Arc::clone(&traffic));
        {
            let mut commands = self.commands();
            commands.insert(command.id.clone(), Arc::clone(&command));
            drop(room);
        }
        match command.started().await {
            Ok(started) => {
                let counter = if started { &traffic.commands } else { &traffic.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(limit) = limit {
                    command.limit(limit);
                }
                Ok((command, started))
            }
            Err(error) => {
                traffic.failed.fetch_add(1, Ordering::Relaxed);
                self.forget(&command);
                Err(Failure::of_running(error))
            }
        }
    }

    /// The execution `id` of the box that `wanted` (a name, an id or the beginning of one) means.
    pub(crate) fn find(&self, wanted: &str, id: &str) -> Result<Arc<Command>, Failure> {
        let command = self.find_for_client(wanted, id)?;
        if command.is_evicted() { Err(unknown(wanted, id)) } else { Ok(command) }
    }

    /// The same for somebody who wants to attach, who may have been overtaken by the request to kill it.
    pub(crate) fn find_for_client(&self, wanted: &str, id: &str) -> Result<Arc<Command>, Failure> {
        let found = self.commands().get(id).cloned();
        let of_box = |command: &Arc<Command>| {
            command.box_name == wanted || (!wanted.is_empty() && command.box_id.starts_with(wanted))
        };
        found.filter(of_box).filter(|command| !command.is_released()).ok_or_else(|| unknown(wanted, id))
    }

    /// Drops an execution; whoever is attached to it stays until its end.
    pub(crate) fn forget(&self, command: &Command) {
        self.commands().remove(&command.id);
    }

    /// What was counted of the box's commands.
    pub(crate) fn traffic(&self, box_id: &str) -> Arc<Traffic> {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(traffic.entry(box_id.to_owned()).or_default())
    }

    /// Forgets what was counted of a box that is gone.
    pub(crate) fn forget_box(&self, box_id: &str) {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).remove(box_id);
    }

    /// The boxes of which something was counted.
    pub(crate) fn counted_boxes(&self) -> Vec<String> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Executions that run now.
    pub(crate) fn running(&self) -> usize {
        self.commands()
            .values()
            .filter(|command| command.outcome().is_none() && !command.is_released())
            .count()
    }

    /// Acts on executions that nobody has been attached to for long; called every few seconds. Waits for no box: one
    /// that does not take a signal must not keep the others' executions.
    pub(super) fn reap(&self, last: Instant, now: Instant) {
        let commands: Vec<Arc<Command>> = self.commands().values().cloned().collect();
        for command in commands {
            if command.is_released() {
                self.forget(&command);
                continue;
            }
            let ended = command.outcome().map(|(_, at)| at);
            match fate(command.abandoned, command.unattended_since(), ended, last, now) {
                Fate::Keep => {}
                Fate::Signal(signal) => {
                    let taken = async move { timeout(TAKES_SIGNAL, command.signal(signal)).await };
                    tokio::spawn(taken);
                }
                Fate::Drop => {
                    command.release();
                    self.forget(&command);
                }
            }
        }
        self.drop_surplus();
    }

    fn drop_surplus(&self) {
        let mut commands = self.commands();
        let mut ended: Vec<(Instant, String)> = commands
            .values()
            .filter(|command| !is_heavy(command))
            .filter_map(|command| command.outcome().map(|(_, at)| (at, command.id.clone())))
            .collect();
        ended.sort();
        for (_, id) in ended.iter().rev().skip(MAX_ENDED) {
            commands.remove(id);
        }
    }

    fn commands(&self) -> MutexGuard<'_, HashMap<String, Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(wanted: &str, id: &str) -> Failure {
    Error::not_found(format!("this server knows no execution {id:?} of box {wanted:?}")).into()
}

/// Since when it has been over with nobody attached.
fn left_since(command: &Command) -> Option<Instant> {
    let (_, ended) = command.outcome()?;
    Some(command.unattended_since()?.max(ended))
}

/// Whether it holds more than its status.
fn is_heavy(command: &Arc<Command>) -> bool {
    !command.is_released() && (command.outcome().is_none() || !command.buffer.is_empty())
}

#[cfg(test)]
pub(super) mod tests;

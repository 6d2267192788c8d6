//! How many sockets the user-mode stack has for a guest: a bound on what a guest takes of the host's memory.
//!
//! slirp has buffers of half a MiB for each TCP connection, so that 4,000 of them took 2.2 GB. What passes the wire tells
//! when slirp opens a socket and when it closes it; the count follows slirp's own rules. A guest that deceives it, say with
//! a reset that slirp ignores, meets the process's limit of descriptors instead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::segment::{Connection, ConnectionStep, Sender};

/// Most connections of a box at a time: half a MiB each, at worst.
pub const MAX_CONNECTIONS: u32 = 512;

/// How long slirp and the host try to open a connection.
const OPENING_TIMEOUT: Duration = Duration::from_secs(150);
/// slirp asks a silent guest after two hours whether it is there, and gives up ten minutes later.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3 * 3600);
/// How long slirp keeps a connection that it was the first to finish: twice its lifetime of a segment.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long slirp keeps a silent UDP socket, or waits for the answer to a ping.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(240);
/// The same once a name server has answered.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections that the stack has sockets for; bounded in number.
#[derive(Debug)]
pub(super) struct OpenConnections {
    max: usize,
    open: HashMap<Connection, Life>,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy)]
struct Life {
    opener: Sender,
    finished: Option<Sender>,
    until: Instant,
}

impl OpenConnections {
    /// None yet, and never more than `max`.
    pub(super) fn new(max: u32) -> Self {
        Self { max: max as usize, open: HashMap::new() }
    }

    /// Notes what a frame of `sender` does; false when it would open one connection too many, and must not be carried.
    pub(super) fn note(
        &mut self,
        connection: Connection,
        step: ConnectionStep,
        sender: Sender,
        now: Instant,
    ) -> bool {
        let Some(life) = self.open.get_mut(&connection) else {
            return step != ConnectionStep::Open || self.begin(connection, sender, now);
        };
        match (step, life.finished) {
            (ConnectionStep::End, _) => {
                self.open.remove(&connection);
            }
            (ConnectionStep::Finish, Some(first)) if first != sender => {
                // The side that finishes first is the one that remembers the connection for a while.
                if first == Sender::Guest {
                    self.open.remove(&connection);
                } else {
                    life.until = now + LINGERING_TIMEOUT;
                }
            }
            (ConnectionStep::Finish, _) => {
                *life = Life { finished: Some(sender), until: now + SILENCE_TIMEOUT, ..*life }
            }
            (ConnectionStep::Open, _) => {
                *life = Life { opener: sender, finished: None, until: now + opening(connection) }
            }
            (ConnectionStep::AnswerName, _) => life.until = now + NAME_TIMEOUT,
            (ConnectionStep::Accept | ConnectionStep::Continue, finished) => {
                // The last acknowledgement of a lingering connection does not prolong it.
                if finished.is_none() {
                    life.until = now + silent(connection);
                }
            }
        }
        true
    }

    /// The side that asked for it; `None` where it is not open.
    pub(super) fn opened_by(&self, connection: Connection) -> Option<Sender> {
        self.open.get(&connection).map(|life| life.opener)
    }

    /// How many there are.
    pub(super) fn count(&mut self, now: Instant) -> usize {
        self.open.retain(|_, life| life.until > now);
        self.open.len()
    }

    fn begin(&mut self, connection: Connection, opener: Sender, now: Instant) -> bool {
        let has_room = self.open.len() < self.max || self.count(now) < self.max;
        if has_room {
            let until = now + opening(connection);
            self.open.insert(connection, Life { opener, finished: None, until });
        }
        has_room
    }
}

fn opening(connection: Connection) -> Duration {
    if matches!(connection, Connection::Tcp { .. }) { OPENING_TIMEOUT } else { DATAGRAM_TIMEOUT }
}

fn silent(connection: Connection) -> Duration {
    if matches!(connection, Connection::Tcp { .. }) { SILENCE_TIMEOUT } else { DATAGRAM_TIMEOUT }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;

//! The wire between a box's network card and the user-mode stack: every frame passes through here.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use boxlite_proto::NetworkUsage;
use boxlite_types::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::connections::OpenConnections;
use super::filter::{MAX_FRAME, filter, solicited_by};
use super::record::{BUFFER, Sifted, sift};
use super::segment::{self, Sender};
use super::stack::Readiness;
use super::{FilterVerdict, MacAddr, Policy, Reason, Solicited, StackProcess};

/// Answers of the wire itself that may wait for their receiver; more are lost, and whoever asked asks again.
const MAX_WAITING_ANSWERS: usize = 64;

/// The shim's side of a box's network, not yet carrying frames.
#[derive(Debug)]
pub struct Wire {
    card: StdStream,
    stack: StdStream,
    policy: Policy,
    counts: Arc<Counts>,
}

/// The other ends of a [`Wire`]: each for one process, to be closed in the shim once that runs.
#[derive(Debug)]
pub struct WireEnds {
    /// For the guest's network card.
    pub card: OwnedFd,
    /// For the user-mode stack.
    pub stack: OwnedFd,
}

/// What the wire has seen since it was made.
#[derive(Debug)]
pub struct Counts {
    from_guest: AtomicU64,
    to_guest: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    max_connections: u32,
    refused_connections: AtomicU64,
    connections: Mutex<OpenConnections>,
}

impl Counts {
    fn new(max_connections: u32) -> Self {
        Self {
            from_guest: AtomicU64::default(),
            to_guest: AtomicU64::default(),
            dropped: Default::default(),
            max_connections,
            refused_connections: AtomicU64::default(),
            connections: Mutex::new(OpenConnections::new(max_connections)),
        }
    }

    /// What the guest uses of its network now, and was refused since its start.
    pub fn usage(&self) -> NetworkUsage {
        NetworkUsage {
            connections: lock(&self.connections).count(Instant::now()) as u64,
            max_connections: self.max_connections.into(),
            refused_connections: self.refused_connections.load(Ordering::Relaxed),
            dropped_frames: Reason::ALL.into_iter().map(|reason| self.dropped(reason)).sum(),
        }
    }

    /// Frames that the guest sent and that passed.
    pub fn from_guest(&self) -> u64 {
        self.from_guest.load(Ordering::Relaxed)
    }

    /// Frames handed to the guest.
    pub fn to_guest(&self) -> u64 {
        self.to_guest.load(Ordering::Relaxed)
    }

    /// Frames from the guest dropped for `reason`.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Notes what `frame` does to a connection; one too many is answered with a refusal, and the frame not carried.
    fn admit(&self, frame: &[u8], sender: Sender, answer: &mpsc::Sender<Vec<u8>>) -> bool {
        let Some((connection, step)) = segment::read(frame, sender) else { return true };
        let admitted = lock(&self.connections).note(connection, step, sender, Instant::now());
        if !admitted {
            if self.refused_connections.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    max = self.max_connections,
                    "the box has as many connections as it may: more are refused"
                );
            }
            if let Some(reset) = segment::reset_of(frame) {
                let _ = answer.try_send(reset);
            }
        }
        admitted
    }

    fn drop_frame(&self, reason: Reason) {
        if self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::debug!(?reason, "the guest sent a frame that its network does not carry");
        }
    }
}

impl Wire {
    /// Makes the wire of a box that `policy` holds for, and of at most `max_connections` connections at a time.
    pub fn new(policy: Policy, max_connections: u32) -> Result<(Self, WireEnds)> {
        let pair = || {
            StdStream::pair()
                .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, OwnedFd::from(theirs))))
                .map_err(|error| {
                    Error::new(ErrorKind::Io, "making the box's network wire failed").because(error)
                })
        };
        let ((card, card_end), (stack, stack_end)) = (pair()?, pair()?);
        let ends = WireEnds { card: card_end, stack: stack_end };
        Ok((Self { card, stack, policy, counts: Arc::new(Counts::new(max_connections)) }, ends))
    }

    /// What tells that `process` at the other end serves, to be awaited before [`Wire::carry`].
    pub fn readiness(
        &self,
        process: &StackProcess,
        mac: MacAddr,
    ) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        process.readiness(&self.stack, mac).map(Readiness::wait)
    }

    /// The wire's counters, which stay readable while it runs.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Carries frames until a process at its ends closes one or the future is dropped; needs a tokio runtime with I/O enabled.
    ///
    /// At most one buffer of frames per direction is held: while the receiver's socket is full, the sender's is not
    /// read, so a fast guest is slowed down by its own queue.
    pub async fn carry(self) -> io::Result<()> {
        let (from_card, to_card) = UnixStream::from_std(self.card)?.into_split();
        let (from_stack, to_stack) = UnixStream::from_std(self.stack)?.into_split();
        let solicited = Mutex::new(Solicited::default());
        let (answer_guest, answers_to_guest) = mpsc::channel(MAX_WAITING_ANSWERS);
        let (answer_stack, answers_to_stack) = mpsc::channel(MAX_WAITING_ANSWERS);
        let (policy, counts) = (&self.policy, &*self.counts);
        let from_guest = forward(from_card, to_stack, answers_to_stack, &counts.from_guest, |frame| {
            match filter(frame, policy) {
                FilterVerdict::Pass => counts.admit(frame, Sender::Guest, &answer_guest),
                FilterVerdict::PassIfSolicited(flow) => {
                    let allowed = lock(&solicited).allows(flow, Instant::now());
                    if !allowed {
                        counts.drop_frame(Reason::Unsolicited);
                    }
                    allowed
                }
                FilterVerdict::Drop(reason) => {
                    counts.drop_frame(reason);
                    false
                }
            }
        });
        let to_guest = forward(from_stack, to_card, answers_to_guest, &counts.to_guest, |frame| {
            if let Some(flow) = solicited_by(frame, policy) {
                lock(&solicited).heard(flow, Instant::now());
            }
            frame.len() <= MAX_FRAME && counts.admit(frame, Sender::Stack, &answer_stack)
        });
        let result = tokio::select! {
            result = from_guest => result,
            result = to_guest => result,
        };
        match result {
            Err(error) if is_hang_up(&error) => Ok(()),
            other => other,
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Vec<u8>>,
    passed: &AtomicU64,
    mut passes: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        tokio::select! {
            Some(answer) = answers.recv() => {
                to.write_all(&(answer.len() as u32).to_be_bytes()).await?;
                to.write_all(&answer).await?;
                continue;
            }
            length = from.read(&mut buffer[filled..]) => match length? {
                0 => return Ok(()),
                length => filled += length,
            },
        }
        let Sifted { used, kept, frames } = sift(&mut buffer[..filled], &mut passes)?;
        to.write_all(&buffer[..kept]).await?;
        passed.fetch_add(frames, Ordering::Relaxed);
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

//! The wire between a box's network card and the user-mode stack: every frame passes through here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::UnixDatagram;

use super::filter::{MAX_FRAME, solicited_by};
use super::qemu::{Descriptors, arguments};
use super::{Flow, MacAddr, Policy, PortForward, Reason, Solicited, Verdict, filter};
use crate::{Error, ErrorKind, Result};

/// The shim's side of a box's network, not yet carrying frames.
#[derive(Debug)]
pub struct Wire {
    card: StdDatagram,
    stack: StdDatagram,
    policy: Policy,
    counts: Arc<Counts>,
}

/// What QEMU needs to be connected to a [`Wire`].
#[derive(Debug)]
pub struct QemuEnds {
    /// Arguments naming the descriptors by number.
    pub arguments: Vec<String>,
    /// Descriptors to be inherited under their own numbers, and closed in the shim once QEMU runs.
    pub descriptors: Vec<OwnedFd>,
}

/// Frames counted since the wire was made.
#[derive(Debug, Default)]
pub struct Counts {
    from_guest: AtomicU64,
    to_guest: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
}

impl Counts {
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

    fn drop_frame(&self, reason: Reason) {
        if self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::debug!(?reason, "the guest sent a frame that its network does not carry");
        }
    }
}

impl Wire {
    /// Makes the wire of the box with address `mac`, whose `ports` have their host ports chosen.
    pub fn new(mac: MacAddr, ports: &[PortForward], policy: Policy) -> Result<(Self, QemuEnds)> {
        let pair = || {
            StdDatagram::pair()
                .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, OwnedFd::from(theirs))))
                .map_err(|error| {
                    Error::new(ErrorKind::Io, format!("making the box's network wire failed: {error}"))
                        .because(error)
                })
        };
        let ((card, qemu_card), (stack, qemu_stack)) = (pair()?, pair()?);
        let descriptors = Descriptors { card: qemu_card.as_raw_fd(), stack: qemu_stack.as_raw_fd() };
        let ends = QemuEnds {
            arguments: arguments(mac, ports, descriptors),
            descriptors: vec![qemu_card, qemu_stack],
        };
        Ok((Self { card, stack, policy, counts: Arc::default() }, ends))
    }

    /// The wire's counters, which stay readable while it runs.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Carries frames until QEMU closes an end or the future is dropped; needs a tokio runtime with I/O enabled.
    ///
    /// At most one frame per direction is held: while the receiver's socket is full, the sender's is not read, so
    /// a fast guest is slowed down by its own queue.
    pub async fn carry(self) -> io::Result<()> {
        let card = UnixDatagram::from_std(self.card)?;
        let stack = UnixDatagram::from_std(self.stack)?;
        let solicited = Mutex::new(Solicited::default());
        let (policy, counts) = (&self.policy, &*self.counts);
        let from_guest = forward(&card, &stack, &counts.from_guest, |frame| {
            let allowed = |flow: Flow| lock(&solicited).allows(flow, Instant::now());
            match filter(frame, policy) {
                Verdict::Pass => true,
                Verdict::PassIfSolicited(flow) if allowed(flow) => true,
                Verdict::PassIfSolicited(_) => {
                    counts.drop_frame(Reason::Unsolicited);
                    false
                }
                Verdict::Drop(reason) => {
                    counts.drop_frame(reason);
                    false
                }
            }
        });
        let to_guest = forward(&stack, &card, &counts.to_guest, |frame| {
            if let Some(flow) = solicited_by(frame, policy) {
                lock(&solicited).heard(flow, Instant::now());
            }
            frame.len() <= MAX_FRAME
        });
        tokio::select! {
            result = from_guest => result,
            result = to_guest => result,
        }
    }
}

fn lock(table: &Mutex<Solicited>) -> std::sync::MutexGuard<'_, Solicited> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(
    from: &UnixDatagram,
    to: &UnixDatagram,
    passed: &AtomicU64,
    mut passes: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    // One byte more than a frame may have shows those that are longer.
    let mut buffer = [0; MAX_FRAME + 1];
    loop {
        let length = match from.recv(&mut buffer).await {
            Err(error) if is_hang_up(&error) => return Ok(()),
            other => other?,
        };
        let frame = &buffer[..length];
        if passes(frame) {
            match to.send(frame).await {
                Err(error) if is_hang_up(&error) => return Ok(()),
                other => other?,
            };
            passed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

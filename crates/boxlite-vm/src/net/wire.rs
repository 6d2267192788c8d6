//! The wire between a box's network card and the user-mode stack: every frame passes through here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use boxlite_types::{Error, ErrorKind, PortForward, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::filter::{MAX_FRAME, filter, solicited_by};
use super::qemu::{Descriptors, arguments};
use super::{FilterVerdict, Flow, MacAddr, Policy, Reason, Solicited};

/// The shim's side of a box's network, not yet carrying frames.
#[derive(Debug)]
pub struct Wire {
    card: StdStream,
    stack: StdStream,
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
            StdStream::pair()
                .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, OwnedFd::from(theirs))))
                .map_err(|error| {
                    Error::new(ErrorKind::Io, "making the box's network wire failed").because(error)
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
    /// At most one buffer of frames per direction is held: while the receiver's socket is full, the sender's is not
    /// read, so a fast guest is slowed down by its own queue.
    pub async fn carry(self) -> io::Result<()> {
        let (from_card, to_card) = UnixStream::from_std(self.card)?.into_split();
        let (from_stack, to_stack) = UnixStream::from_std(self.stack)?.into_split();
        let solicited = Mutex::new(Solicited::default());
        let (policy, counts) = (&self.policy, &*self.counts);
        let from_guest = forward(from_card, to_stack, &counts.from_guest, |frame| {
            let allowed = |flow: Flow| lock(&solicited).allows(flow, Instant::now());
            match filter(frame, policy) {
                FilterVerdict::Pass => true,
                FilterVerdict::PassIfSolicited(flow) if allowed(flow) => true,
                FilterVerdict::PassIfSolicited(_) => {
                    counts.drop_frame(Reason::Unsolicited);
                    false
                }
                FilterVerdict::Drop(reason) => {
                    counts.drop_frame(reason);
                    false
                }
            }
        });
        let to_guest = forward(from_stack, to_card, &counts.to_guest, |frame| {
            if let Some(flow) = solicited_by(frame, policy) {
                lock(&solicited).heard(flow, Instant::now());
            }
            frame.len() <= MAX_FRAME
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

fn lock(table: &Mutex<Solicited>) -> std::sync::MutexGuard<'_, Solicited> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// QEMU's `stream` netdev puts a frame's length before it, in four bytes, the most significant first.
const LENGTH_PREFIX: usize = 4;
/// The longest frame that QEMU carries at all: its `NET_BUFSIZE`.
const MAX_RECORD: usize = 4096 + 65536;
/// Bytes of a direction's buffer: the longest record always fits behind an incomplete one's beginning.
const BUFFER: usize = 2 * (LENGTH_PREFIX + MAX_RECORD);

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
    mut passes: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        match from.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            length => filled += length,
        }
        let Sifted { used, kept, frames } = sift(&mut buffer[..filled], &mut passes)?;
        to.write_all(&buffer[..kept]).await?;
        passed.fetch_add(frames, Ordering::Relaxed);
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Sifted {
    /// Bytes of whole records, from the start of the buffer.
    used: usize,
    /// Bytes of those that passed, moved to the start of the buffer.
    kept: usize,
    /// How many passed.
    frames: u64,
}

/// Moves the records that pass to the front of `buffer`; an incomplete record at its end stays in place.
fn sift(buffer: &mut [u8], passes: &mut impl FnMut(&[u8]) -> bool) -> io::Result<Sifted> {
    let mut sifted = Sifted { used: 0, kept: 0, frames: 0 };
    while let Some((prefix, rest)) = buffer[sifted.used..].split_first_chunk::<LENGTH_PREFIX>() {
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_RECORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("QEMU sent a frame of {length} bytes"),
            ));
        }
        let Some(frame) = rest.get(..length) else { break };
        let record = sifted.used..sifted.used + LENGTH_PREFIX + length;
        if passes(frame) {
            if sifted.kept < sifted.used {
                buffer.copy_within(record.clone(), sifted.kept);
            }
            sifted.kept += record.len();
            sifted.frames += 1;
        }
        sifted.used = record.end;
    }
    Ok(sifted)
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

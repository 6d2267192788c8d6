//! The wire between a box's network card and the user-mode stack: every frame passes through here.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use boxlite_proto::NetworkUsage;
use boxlite_types::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::allow::{AllowVerdict, Refusals, RefusedFrame, Surroundings};
use super::answer::TcpSegment;
use super::connections::OpenConnections;
use super::filter::{MAX_FRAME, filter, solicited_by};
use super::members::{Exchange, Taken};
use super::record::{BUFFER, LENGTH_PREFIX, Sifted, sift};
use super::segment::{self, Connection, ConnectionStep, Sender};
use super::stack::Readiness;
use super::{AllowList, FilterVerdict, GATEWAY, MacAddr, Policy, Reason, Solicited, StackProcess};

/// Frames of the wire itself that may wait for the guest; more are lost, and whoever asked asks again.
const MAX_WAITING_FOR_GUEST: usize = 64;
/// The same for the stack: more than one buffer of the guest's frames can have a list release and end, so that none is lost.
const MAX_WAITING_FOR_STACK: usize = 1 << 16;

/// Frames from other boxes of the network that may wait for the guest; further ones wait with their senders.
const MAX_WAITING_FROM_PEERS: usize = 128;

/// The shim's side of a box's network, not yet carrying frames.
#[derive(Debug)]
pub struct Wire {
    card: StdStream,
    stack: StdStream,
    policy: Policy,
    allowed: Option<AllowList>,
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

/// The wire's counts since it was made.
#[derive(Debug)]
pub struct Counts {
    from_guest: AtomicU64,
    to_guest: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    max_connections: u32,
    refused_connections: AtomicU64,
    host_connections: Option<AtomicU64>,
    connections: Mutex<OpenConnections>,
    refusals: Option<Mutex<Refusals>>,
    exchange: OnceLock<Arc<Exchange>>,
}

/// Where the wire's own frames wait for their receivers.
#[derive(Debug)]
struct OwnFrames {
    to_guest: mpsc::Sender<Vec<u8>>,
    to_stack: mpsc::Sender<Vec<u8>>,
}

impl Counts {
    fn new(max_connections: u32, has_list: bool, reaches_host: bool) -> Self {
        Self {
            refusals: has_list.then(Mutex::default),
            from_guest: AtomicU64::default(),
            to_guest: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            dropped: Default::default(),
            max_connections,
            refused_connections: AtomicU64::default(),
            host_connections: reaches_host.then(AtomicU64::default),
            connections: Mutex::new(OpenConnections::new(max_connections)),
            exchange: OnceLock::new(),
        }
    }

    /// Returns the guest's present use of its network, and the refusals since its start.
    pub fn usage(&self) -> NetworkUsage {
        NetworkUsage {
            connections: lock(&self.connections).count(Instant::now()) as u64,
            max_connections: self.max_connections.into(),
            refused_connections: self.refused_connections.load(Ordering::Relaxed),
            dropped_frames: Reason::ALL.into_iter().map(|reason| self.dropped(reason)).sum(),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            host_connections: self.host_connections.as_ref().map(|count| count.load(Ordering::Relaxed)),
            refusals: self.refusals.as_ref().map(|refusals| lock(refusals).figures()),
            peers: self.exchange.get().map(|exchange| exchange.usage()),
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
        let admitted = {
            let mut open = lock(&self.connections);
            // Segments that repeat the question are of the same connection.
            let is_new = step == ConnectionStep::Open && open.opened_by(connection).is_none();
            let admitted = open.note(connection, step, sender, Instant::now());
            if admitted && is_new && sender == Sender::Guest {
                self.note_host_connection(connection);
            }
            admitted
        };
        if !admitted {
            if self.refused_connections.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    max = self.max_connections,
                    "the box has as many connections as it may: more are refused"
                );
            }
            if let Some(refusal) = TcpSegment::read(frame).and_then(|segment| segment.refusal()) {
                let _ = answer.try_send(refusal);
            }
        }
        admitted
    }

    /// Counts a connection of the guest's that leads to the host: the filter passes no other to the gateway.
    fn note_host_connection(&self, connection: Connection) {
        if let (Connection::Tcp { peer: GATEWAY, .. }, Some(count)) = (connection, &self.host_connections) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Carries out what the list says of a frame of the guest's; returns whether it is carried as it is.
    fn obey(&self, verdict: AllowVerdict, frame: &[u8], own: &OwnFrames) -> bool {
        match verdict {
            AllowVerdict::Carry => return self.admit(frame, Sender::Guest, &own.to_guest),
            AllowVerdict::Wait => {}
            AllowVerdict::Release(frames) => {
                for frame in frames {
                    self.admit(&frame, Sender::Guest, &own.to_guest);
                    let _ = own.to_stack.try_send(frame);
                }
            }
            AllowVerdict::Answer(answer) => drop(own.to_guest.try_send(answer)),
            AllowVerdict::Refuse(refusal) => self.refuse(refusal, frame, own),
        }
        false
    }

    fn refuse(&self, refusal: RefusedFrame, frame: &[u8], own: &OwnFrames) {
        let RefusedFrame { kind, destination, to_guest, to_stack } = refusal;
        let shown = destination.clone();
        if self.refusals.as_ref().is_some_and(|refusals| lock(refusals).note(kind, destination)) {
            tracing::info!(?kind, destination = shown, "the guest is refused what its list does not allow");
        }
        let _ = to_guest.map(|answer| own.to_guest.try_send(answer));
        if let Some(end) = to_stack {
            if let Some((connection, _)) = segment::read(frame, Sender::Guest) {
                let now = Instant::now();
                lock(&self.connections).note(connection, ConnectionStep::End, Sender::Guest, now);
            }
            let _ = own.to_stack.try_send(end);
        }
    }

    /// Gives the box's network a look at a frame of the guest's; returns whether it is to go elsewhere.
    fn goes_elsewhere(&self, frame: &[u8], own: &OwnFrames) -> bool {
        let Some(exchange) = self.exchange.get() else { return true };
        match exchange.take(frame) {
            Taken::Elsewhere => return true,
            Taken::Answered(answer) => drop(own.to_guest.try_send(answer)),
            Taken::Sent => {
                self.from_guest.fetch_add(1, Ordering::Relaxed);
                self.sent_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
            Taken::Dropped => {}
        }
        false
    }

    fn drop_frame(&self, reason: Reason) {
        if self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::debug!(?reason, "the guest sent a frame that its network does not carry");
        }
    }
}

impl OwnFrames {
    /// With what takes those for the guest, and those for the stack.
    fn channels() -> (Self, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
        let (to_guest, for_guest) = mpsc::channel(MAX_WAITING_FOR_GUEST);
        let (to_stack, for_stack) = mpsc::channel(MAX_WAITING_FOR_STACK);
        (Self { to_guest, to_stack }, for_guest, for_stack)
    }
}

impl Wire {
    /// Makes the wire of a box that `policy` holds for, and of at most `max_connections` connections at a time.
    ///
    /// Where there is a list of what is allowed, the box reaches nothing else.
    pub fn new(policy: Policy, allowed: Option<AllowList>, max_connections: u32) -> Result<(Self, WireEnds)> {
        let pair = || {
            StdStream::pair()
                .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, OwnedFd::from(theirs))))
                .map_err(|error| {
                    Error::new(ErrorKind::Io, "making the box's network wire failed").because(error)
                })
        };
        let ((card, card_end), (stack, stack_end)) = (pair()?, pair()?);
        let ends = WireEnds { card: card_end, stack: stack_end };
        let counts =
            Arc::new(Counts::new(max_connections, allowed.is_some(), policy.reaches_any_host_port()));
        Ok((Self { card, stack, policy, allowed, counts }, ends))
    }

    /// Puts the rules of a box in force on a wire that has carried nothing yet.
    pub fn govern(&mut self, policy: Policy, allowed: Option<AllowList>, max_connections: u32) {
        self.counts =
            Arc::new(Counts::new(max_connections, allowed.is_some(), policy.reaches_any_host_port()));
        (self.policy, self.allowed) = (policy, allowed);
    }

    /// Has it carry frames between the guest and the other boxes of its network as well.
    #[must_use]
    pub fn with_exchange(self, exchange: Exchange) -> Self {
        let _ = self.counts.exchange.set(Arc::new(exchange));
        self
    }

    /// Returns the sign that `process` at the other end serves, to be awaited before [`Wire::carry`].
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

    /// Carries frames until a process at its ends closes one, and says which, or the future is dropped; needs a tokio runtime with
    /// I/O enabled.
    ///
    /// At most one buffer of frames per direction is held: while the receiver's socket is full, the sender's is not
    /// read, so a fast guest is slowed down by its own queue.
    pub async fn carry(self) -> io::Result<WireEnd> {
        let (from_card, to_card) = UnixStream::from_std(self.card)?.into_split();
        let (from_stack, to_stack) = UnixStream::from_std(self.stack)?.into_split();
        let solicited = Mutex::new(Solicited::default());
        let (own, own_to_guest, own_to_stack) = OwnFrames::channels();
        let (policy, counts) = (&self.policy, &*self.counts);
        let allowed = self.allowed.map(Mutex::new);
        let (to_peers_guest, from_peers) = mpsc::channel(MAX_WAITING_FROM_PEERS);
        let exchange = counts.exchange.get().cloned();
        let peers = async {
            match exchange {
                Some(exchange) => exchange.run(to_peers_guest).await,
                None => std::future::pending().await,
            }
        };
        let for_stack = Injected { own: own_to_stack, peers: None };
        let for_guest = Injected { own: own_to_guest, peers: Some(from_peers) };
        let from_guest =
            forward(from_card, to_stack, for_stack, (&counts.from_guest, &counts.sent_bytes), |frame| {
                if !counts.goes_elsewhere(frame, &own) {
                    return false;
                }
                match (filter(frame, policy), &allowed) {
                    (FilterVerdict::Pass, None) => counts.admit(frame, Sender::Guest, &own.to_guest),
                    (FilterVerdict::Pass, Some(list)) => {
                        let verdict = {
                            let (connections, solicited) = (lock(&counts.connections), lock(&solicited));
                            let now = Instant::now();
                            let around =
                                Surroundings { connections: &connections, solicited: &solicited, now };
                            lock(list).judge(frame, around)
                        };
                        counts.obey(verdict, frame, &own)
                    }
                    (FilterVerdict::PassIfSolicited(flow), _) => {
                        let allowed = lock(&solicited).allows(flow, Instant::now());
                        if !allowed {
                            counts.drop_frame(Reason::Unsolicited);
                        }
                        allowed
                    }
                    (FilterVerdict::Drop(reason), _) => {
                        counts.drop_frame(reason);
                        false
                    }
                }
            });
        let to_guest =
            forward(from_stack, to_card, for_guest, (&counts.to_guest, &counts.received_bytes), |frame| {
                if let Some(flow) = solicited_by(frame, policy) {
                    lock(&solicited).heard(flow, Instant::now());
                }
                let is_due = allowed.as_ref().is_none_or(|list| lock(list).learn(frame, Instant::now()));
                is_due && frame.len() <= MAX_FRAME && counts.admit(frame, Sender::Stack, &own.to_stack)
            });
        let result = tokio::select! {
            result = from_guest => result.map(|()| WireEnd::Card),
            result = to_guest => result.map(|()| WireEnd::Stack),
            result = peers => result.map(|()| WireEnd::Unknown),
        };
        match result {
            Err(error) if is_hang_up(&error) => Ok(WireEnd::Unknown),
            other => other,
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of a wire's ends was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireEnd {
    /// That of the guest's card: its QEMU has gone.
    Card,
    /// That of the user-mode stack.
    Stack,
    /// One of them.
    Unknown,
}

/// Frames for a receiver that do not come from the other end of the wire.
struct Injected {
    /// The wire's own.
    own: mpsc::Receiver<Vec<u8>>,
    /// Those of other boxes.
    peers: Option<mpsc::Receiver<Vec<u8>>>,
}

impl Injected {
    /// Waits for frames of other boxes, as many as there are.
    async fn from_peers(peers: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if let Some(receiver) = peers {
            receiver.recv_many(&mut frames, MAX_WAITING_FROM_PEERS).await;
        }
        if frames.is_empty() { std::future::pending().await } else { frames }
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    Injected { mut own, mut peers }: Injected,
    passed: (&AtomicU64, &AtomicU64),
    mut passes: impl FnMut(&mut [u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        // Neither the sender nor the peers can keep the other from being heard.
        let heard = async {
            tokio::select! {
                length = from.read(&mut buffer[filled..]) => WireInput::Sender(length),
                frames = Injected::from_peers(&mut peers) => WireInput::Peers(frames),
            }
        };
        tokio::select! {
            // Its own frames come before any that the sender sends after what they answer.
            biased;
            Some(frame) = own.recv() => {
                to.write_all(&records(&[frame])).await?;
                continue;
            }
            heard = heard => match heard {
                WireInput::Sender(length) => match length? {
                    0 => return Ok(()),
                    length => filled += length,
                },
                WireInput::Peers(frames) => {
                    let records = records(&frames);
                    to.write_all(&records).await?;
                    passed.0.fetch_add(frames.len() as u64, Ordering::Relaxed);
                    passed.1.fetch_add((records.len() - frames.len() * LENGTH_PREFIX) as u64, Ordering::Relaxed);
                    continue;
                }
            },
        }
        let Sifted { used, kept, frames } = sift(&mut buffer[..filled], &mut passes)?;
        to.write_all(&buffer[..kept]).await?;
        passed.0.fetch_add(frames, Ordering::Relaxed);
        passed.1.fetch_add(kept as u64 - frames * LENGTH_PREFIX as u64, Ordering::Relaxed);
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

/// A direction's next input to carry.
enum WireInput {
    /// So many bytes of its sender's.
    Sender(io::Result<usize>),
    /// Frames of other boxes.
    Peers(Vec<Vec<u8>>),
}

/// Frames as QEMU's sockets carry them.
fn records(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()).collect()
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

//! One execution: a command in a box, or a box's main process, which clients attach to and leave.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxlite::wire::{ErrorBody, ExecutionCreated};
use boxlite::{
    AttachedExecution, BoxInfo, Departure, Error, ErrorKind, Execution, ExecutionControl, ExecutionSeat,
    ExitStatus, OutputStream, UnattendedPolicy,
};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::{OutputBuffer, OutputPiece};
use super::input::ExecutionInput;
use crate::failure::HttpFailure;

/// The terms of an execution, fixed at its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecutionTerms {
    pub(crate) unattended: UnattendedPolicy,
    /// How long it may run.
    pub(crate) limit: Option<Duration>,
    pub(crate) process: ServedProcess,
}

/// The process that clients attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServedProcess {
    /// A command in a box.
    Command { tty: bool },
    /// The box's main process, which outlives all its clients.
    Main { tty: bool },
}

impl ServedProcess {
    /// Tells whether it has a terminal.
    pub(crate) fn has_tty(self) -> bool {
        let (Self::Command { tty } | Self::Main { tty }) = self;
        tty
    }

    /// Tells whether a client without acknowledgements may go on with standard input that another connection broke off:
    /// somebody at a terminal sees what is missing.
    fn input_may_have_gaps(self) -> bool {
        self != Self::Command { tty: false }
    }
}

impl ExecutionTerms {
    /// The terms of a box's main process.
    pub(crate) fn of_main_process(of: &BoxInfo) -> Self {
        let process = ServedProcess::Main { tty: of.options.tty };
        Self { unattended: UnattendedPolicy::Release, limit: None, process }
    }
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub(crate) enum ExecutionOutcome {
    /// The process exited with a status.
    Exited(ExitStatus),
    /// The status is lost: the box, or the connection to it, broke.
    Broken(ErrorBody),
}

/// Counters of a box's commands, shared by all of them.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Commands begun.
    pub(crate) commands: AtomicU64,
    /// Commands that could not be started.
    pub(crate) failed: AtomicU64,
    /// Bytes of standard input.
    pub(crate) sent: AtomicU64,
    /// Bytes of output.
    pub(crate) received: AtomicU64,
}

/// An execution that this server serves, with its waiting output.
pub(crate) struct ServedExecution {
    /// Its random id.
    pub(crate) id: String,
    /// The box's id.
    pub(super) box_id: String,
    /// The box's name.
    pub(super) box_name: String,
    pub(crate) began: Instant,
    pub(crate) began_at: Timestamp,
    pub(super) terms: ExecutionTerms,
    pub(super) buffer: OutputBuffer,
    /// Dropped on release, since holding it keeps the command's standard input from others, and at the end of the command,
    /// since it holds a socket.
    control: Mutex<Option<Arc<dyn ExecutionControl>>>,
    pub(super) input: Arc<ExecutionInput>,
    pub(super) has_stdin: bool,
    /// This server's seat at an execution that its box holds; `None` where it is held here.
    seat: Option<Arc<dyn ExecutionSeat>>,
    /// Another client, perhaps of another server, took the seat.
    unseated: AtomicBool,
    outcome: watch::Sender<Option<(ExecutionOutcome, Instant)>>,
    attachment: Mutex<Attachment>,
    /// Held by the attached client.
    turn: Arc<tokio::sync::Mutex<()>>,
    evicted: AtomicBool,
    killed: AtomicBool,
    /// It was killed because its input has a gap.
    input_lost: AtomicBool,
    timed_out: AtomicBool,
    traffic: Arc<Traffic>,
    /// Cancelled on release, after which the command keeps running without us.
    released: CancellationToken,
    /// Cancelled when the command has ended or was released.
    input_ends: CancellationToken,
}

/// The status of a process that was killed by SIGKILL.
const KILLED: i32 = 128 + libc::SIGKILL;
/// Why a command was killed whose client went on with its input after a broken connection.
const INPUT_LOST: &str = "killed because its standard input did not arrive whole: the connection broke before the input's \
                          end, and what the client sent last may be lost";

/// The output of a command that was waited for.
#[derive(Debug, Default)]
pub(crate) struct CollectedOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Bytes that there was no room for.
    pub(crate) dropped: u64,
}

/// How long a process may take to read the input that was accepted for it here, once its client has left.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a replaced client may take to leave.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Attachment {
    attached: bool,
    since: Instant,
    /// Cancelled when another client replaces this one.
    replaced: CancellationToken,
}

impl Default for Attachment {
    fn default() -> Self {
        Self { attached: false, since: Instant::now(), replaced: CancellationToken::new() }
    }
}

/// The right to be the only client of an execution; returned on drop.
pub(crate) struct AttachmentGuard {
    pub(crate) served: Arc<ServedExecution>,
    /// Cancelled when another client replaces this one.
    pub(super) replaced: CancellationToken,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for AttachmentGuard {
    fn drop(&mut self) {
        let mut attachment = self.served.attachment();
        (attachment.attached, attachment.since) = (false, Instant::now());
        if self.served.seat.is_some() {
            // Output that was read for this client alone is left with its box.
            self.served.released.cancel();
        }
    }
}

impl ServedExecution {
    /// Takes over `execution` of the box `(id, name)` and starts reading its output.
    pub(super) fn start(
        execution: Execution,
        of_box: (String, String),
        terms: ExecutionTerms,
        traffic: Arc<Traffic>,
    ) -> Arc<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self::begin(id, execution, of_box, terms, traffic, None)
    }

    /// Serves one client of an execution that the box `(id, name)` holds, from the position that the seat begins at.
    pub(super) fn of_held(
        attached: AttachedExecution,
        of_box: (String, String),
        traffic: Arc<Traffic>,
    ) -> Arc<Self> {
        let AttachedExecution { execution, seat, position, state } = attached;
        let process = ServedProcess::Command { tty: state.tty };
        let terms = ExecutionTerms { unattended: state.unattended, limit: None, process };
        Self::begin(state.id, execution, of_box, terms, traffic, Some((seat, position)))
    }

    fn begin(
        id: String,
        execution: Execution,
        (box_id, box_name): (String, String),
        terms: ExecutionTerms,
        traffic: Arc<Traffic>,
        seat: Option<(Arc<dyn ExecutionSeat>, u64)>,
    ) -> Arc<Self> {
        let Execution { stdin, output, control } = execution;
        let (outcome, _) = watch::channel(None);
        let released = CancellationToken::new();
        let input_ends = released.child_token();
        let served = Arc::new(Self {
            id,
            box_id,
            box_name,
            began: Instant::now(),
            began_at: Timestamp::now(),
            terms,
            buffer: seat.as_ref().map_or_else(OutputBuffer::default, |(_, from)| OutputBuffer::at(*from)),
            control: Mutex::new(Some(Arc::clone(&control))),
            has_stdin: stdin.is_some(),
            input: match &seat {
                Some((seat, _)) => ExecutionInput::of_held(stdin, seat.given(), &input_ends),
                None => ExecutionInput::into(stdin, &input_ends),
            },
            seat: seat.map(|(seat, _)| seat),
            unseated: AtomicBool::new(false),
            outcome,
            attachment: Mutex::new(Attachment::default()),
            turn: Arc::default(),
            evicted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            input_lost: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            traffic,
            released: released.clone(),
            input_ends,
        });
        let reader = Arc::clone(&served);
        tokio::spawn(released.run_until_cancelled_owned(async move { reader.read(output, control).await }));
        served
    }

    async fn read(
        &self,
        mut output: std::pin::Pin<
            Box<dyn futures::Stream<Item = boxlite::Result<boxlite::OutputChunk>> + Send>,
        >,
        control: Arc<dyn ExecutionControl>,
    ) {
        while let Some(next) = output.next().await {
            let piece = match next {
                Ok(chunk) => {
                    self.traffic.received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    OutputPiece::Output(chunk)
                }
                Err(error) => OutputPiece::Loss(error.chain().to_string()),
            };
            self.buffer.push(piece).await;
        }
        let outcome = match control.wait().await {
            Ok(status) if status.code == KILLED && self.input_lost.load(Ordering::Relaxed) => {
                ExecutionOutcome::Exited(ExitStatus { reason: Some(INPUT_LOST.to_owned()), ..status })
            }
            Ok(status) => ExecutionOutcome::Exited(status),
            Err(error) if self.seat.is_some() && error.kind() == ErrorKind::Conflict => {
                self.unseated.store(true, Ordering::Relaxed);
                ExecutionOutcome::Broken(HttpFailure::from(error).body(None))
            }
            Err(error) => ExecutionOutcome::Broken(HttpFailure::from(error).body(None)),
        };
        self.input_ends.cancel();
        lock(&self.control).take();
        self.outcome.send_replace(Some((outcome, Instant::now())));
        self.buffer.close();
    }

    /// Kills the command when it still runs after `limit`.
    pub(super) fn limit(self: &Arc<Self>, limit: Duration) {
        let served = Arc::clone(self);
        tokio::spawn(async move {
            let mut ended = served.outcome.subscribe();
            if tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await.is_err() {
                served.timed_out.store(true, Ordering::Relaxed);
                let _ = served.signal(libc::SIGKILL).await;
            }
        });
    }

    /// Returns the answer to its creation.
    pub(crate) fn created(&self, started: bool) -> ExecutionCreated {
        ExecutionCreated { execution_id: self.id.clone(), started, stdin: self.has_stdin }
    }

    /// Waits until its end, if that has not come, and returns it; `None` when it was released before.
    pub(crate) async fn ended(&self) -> Option<ExecutionOutcome> {
        let mut ended = self.outcome.subscribe();
        tokio::select! {
            biased;
            found = ended.wait_for(Option::is_some) => found.ok()?.clone().map(|(outcome, _)| outcome),
            () = self.released.cancelled() => None,
        }
    }

    /// Sends a signal to the process.
    pub(crate) async fn signal(&self, signal: i32) -> boxlite::Result<()> {
        self.control()?.signal(signal).await
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// `Conflict` when it has none.
    pub(crate) async fn resize(&self, size: boxlite::WindowSize) -> boxlite::Result<()> {
        if !self.terms.process.has_tty() {
            return Err(Error::conflict(format!("execution {} has no terminal to resize", self.id)));
        }
        self.control()?.resize(size).await
    }

    /// Kills the process, on a client's request.
    pub(crate) async fn kill(&self) -> boxlite::Result<()> {
        self.killed.store(true, Ordering::Relaxed);
        self.signal(libc::SIGKILL).await
    }

    /// Releases the command: it keeps running, its output is discarded, and others may use its input.
    pub(super) fn release(&self) {
        if let Some(seat) = &self.seat {
            seat.release();
        }
        self.released.cancel();
        lock(&self.control).take();
    }

    /// Tells whether it was released.
    pub(super) fn is_released(&self) -> bool {
        self.released.is_cancelled()
    }

    /// Tells whether its box holds it, and goes on with it when this server or its client is gone.
    pub(crate) fn is_held(&self) -> bool {
        self.seat.is_some() && !matches!(self.outcome(), Some((ExecutionOutcome::Broken(_), _)))
    }

    /// Tells whether another client took its seat, so that nothing can be said of it here.
    pub(super) fn is_unseated(&self) -> bool {
        self.unseated.load(Ordering::Relaxed)
    }

    /// Leaves it to its box, if that holds it, and returns once the next client may have it.
    pub(crate) async fn leave(&self, how: Departure) {
        if let Some(seat) = &self.seat {
            // Accepted input still reaches the box; a client that resumes sends again whatever was not acknowledged.
            let drained = tokio::time::timeout(DRAIN_TIMEOUT, self.input.drained()).await.is_ok();
            seat.leave(if drained { how } else { Departure::Broke }).await;
        }
    }

    /// Records that the next piece was sent to a reader that does not acknowledge.
    pub(super) fn passed_on(&self) {
        self.buffer.passed_on();
        self.taken();
    }

    /// Records that the reader has everything before `position`, as far as that was sent.
    pub(super) fn acknowledge(&self, position: u64) {
        self.buffer.acknowledge(position);
        self.taken();
    }

    fn taken(&self) {
        if let Some(seat) = &self.seat {
            seat.taken(self.buffer.dropped_to());
        }
    }

    fn control(&self) -> boxlite::Result<Arc<dyn ExecutionControl>> {
        lock(&self.control)
            .clone()
            .ok_or_else(|| Error::conflict(format!("execution {} has ended or was released", self.id)))
    }

    /// Passes standard input on, once there is room for it.
    pub(super) async fn offer_input(&self, bytes: bytes::Bytes) {
        self.traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.input.offer(bytes).await.is_err() {
            self.kill_for_lost_input().await;
        }
    }

    /// Passes on that standard input has ended.
    pub(super) async fn end_input(&self) {
        if self.input.end().is_err() {
            self.kill_for_lost_input().await;
        }
    }

    /// Records that a client which does not acknowledge is gone without a word: neither end knows what was lost of the
    /// input that it sent, so nothing may follow on that.
    pub(super) fn input_broke_off(&self) {
        if !self.terms.process.input_may_have_gaps() {
            self.input.break_off();
        }
    }

    /// Ends its input and returns its output once all has come, for its only client: at most `most` bytes of it.
    ///
    /// # Errors
    /// `Conflict` when it has another client.
    pub(crate) async fn collect(self: &Arc<Self>, most: usize) -> boxlite::Result<CollectedOutput> {
        let attached = self.attach(false).await;
        let attached = attached
            .ok_or_else(|| Error::conflict(format!("another client is attached to execution {}", self.id)))?;
        self.end_input().await;
        let mut collected = CollectedOutput::default();
        while let Some(piece) = self.buffer.next().await {
            self.passed_on();
            let OutputPiece::Output(chunk) = piece else { continue };
            let room = most - collected.stdout.len() - collected.stderr.len();
            let (taken, dropped) = chunk.bytes.split_at(chunk.bytes.len().min(room));
            collected.dropped += dropped.len() as u64;
            let stream = match chunk.stream {
                OutputStream::Stdout => &mut collected.stdout,
                OutputStream::Stderr => &mut collected.stderr,
            };
            stream.extend_from_slice(taken);
        }
        self.leave(Departure::Done).await;
        drop(attached);
        Ok(collected)
    }

    /// Kills the command, which must not take a part of its input for the whole.
    async fn kill_for_lost_input(&self) {
        self.input_lost.store(true, Ordering::Relaxed);
        if let Err(error) = self.signal(libc::SIGKILL).await {
            tracing::warn!(id = self.id, error = %error.chain(), "a command with lost input could not be killed");
        }
    }

    /// Returns how and when it ended, if it has.
    pub(crate) fn outcome(&self) -> Option<(ExecutionOutcome, Instant)> {
        self.outcome.borrow().clone()
    }

    /// Tells whether a client killed it.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Tells whether it exceeded its time limit.
    pub(crate) fn was_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Becomes its client. An attached client is replaced if `instead` is set; otherwise it stays, and this returns `None`.
    pub(crate) async fn attach(self: &Arc<Self>, instead: bool) -> Option<AttachmentGuard> {
        if instead {
            self.attachment().replaced.cancel();
        }
        let turn = match Arc::clone(&self.turn).try_lock_owned() {
            Err(_) if instead => {
                tokio::time::timeout(REPLACE_TIMEOUT, Arc::clone(&self.turn).lock_owned()).await.ok()?
            }
            free => free.ok()?,
        };
        let replaced = CancellationToken::new();
        *self.attachment() = Attachment { attached: true, since: Instant::now(), replaced: replaced.clone() };
        Some(AttachmentGuard { served: Arc::clone(self), replaced, _turn: turn })
    }

    /// Resumes its output after `received` bytes for a new client; false when that output is not here any more.
    pub(crate) fn resume(&self, received: Option<u64>) -> bool {
        self.buffer.begin(received)
    }

    /// Hides it from everyone but a client that is about to attach.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    /// Tells whether it was evicted.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Returns since when no client has been attached; `None` while one is.
    pub(crate) fn unattended_since(&self) -> Option<Instant> {
        let attachment = self.attachment();
        (!attachment.attached).then_some(attachment.since)
    }

    fn attachment(&self) -> MutexGuard<'_, Attachment> {
        lock(&self.attachment)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

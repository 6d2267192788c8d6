//! One execution: a command in a box (or a box's main process), whoever may be attached to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxlite::wire::{ErrorBody, ExecutionCreated};
use boxlite::{Error, ExecStatus, Execution, ExecutionControl};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::{Buffer, Piece};
use super::input::Input;
use crate::failure::Failure;

/// What becomes of a command that nobody is attached to for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It is ended: its public client was to come back and did not.
    HungUp,
    /// It runs on, and this server lets go of it.
    LetGo,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// It has a status.
    Ended(ExecStatus),
    /// Nobody will know: its box or the way to it broke.
    Broken(ErrorBody),
}

/// What was counted of a box's commands; shared by all of them.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Commands begun.
    pub(crate) commands: AtomicU64,
    /// Commands that could not be begun.
    pub(crate) failed: AtomicU64,
    /// Bytes of standard input.
    pub(crate) sent: AtomicU64,
    /// Bytes of output.
    pub(crate) received: AtomicU64,
}

/// An execution and what waits of its output.
pub(crate) struct Command {
    /// The random id it is known by.
    pub(crate) id: String,
    /// The box's id.
    pub(super) box_id: String,
    /// The box's name.
    pub(super) box_name: String,
    pub(super) began: Instant,
    pub(super) began_at: Timestamp,
    pub(super) abandoned: Abandoned,
    pub(super) buffer: Buffer,
    /// Until it is let go of: what is held of an execution keeps its standard input from others.
    control: Mutex<Option<Arc<dyn ExecutionControl>>>,
    pub(super) input: Arc<Input>,
    pub(super) has_stdin: bool,
    outcome: watch::Sender<Option<(Outcome, Instant)>>,
    attachment: Mutex<Attachment>,
    /// Held by whoever is attached.
    seat: Arc<tokio::sync::Mutex<()>>,
    evicted: AtomicBool,
    killed: AtomicBool,
    timed_out: AtomicBool,
    traffic: Arc<Traffic>,
    /// Lets go of the library's execution, after which the command runs on without us.
    released: CancellationToken,
}

/// How long the client that is replaced may take to notice.
const REPLACED: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Attachment {
    attached: bool,
    since: Instant,
    /// Set when another client takes the place of this one.
    replaced: CancellationToken,
}

impl Default for Attachment {
    fn default() -> Self {
        Self { attached: false, since: Instant::now(), replaced: CancellationToken::new() }
    }
}

/// The right to be the one client of a command; given back when dropped.
pub(super) struct Attached {
    pub(super) command: Arc<Command>,
    /// Set when another client takes the place of this one.
    pub(super) replaced: CancellationToken,
    _seat: OwnedMutexGuard<()>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut attachment = self.command.attachment();
        (attachment.attached, attachment.since) = (false, Instant::now());
    }
}

impl Command {
    /// Takes over `execution`, of which the box is `(id, name)`, and begins to read its output.
    pub(super) fn start(
        execution: Execution,
        (box_id, box_name): (String, String),
        abandoned: Abandoned,
        traffic: Arc<Traffic>,
    ) -> Arc<Self> {
        let Execution { stdin, output, control } = execution;
        let (outcome, _) = watch::channel(None);
        let released = CancellationToken::new();
        let command = Arc::new(Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            box_id,
            box_name,
            began: Instant::now(),
            began_at: Timestamp::now(),
            abandoned,
            buffer: Buffer::default(),
            control: Mutex::new(Some(Arc::clone(&control))),
            has_stdin: stdin.is_some(),
            input: Input::into(stdin, &released),
            outcome,
            attachment: Mutex::new(Attachment::default()),
            seat: Arc::default(),
            evicted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            traffic,
            released: released.clone(),
        });
        let reader = Arc::clone(&command);
        tokio::spawn(released.run_until_cancelled_owned(async move { reader.read(output, control).await }));
        command
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
                    Piece::Output(chunk)
                }
                Err(error) => Piece::Trouble(error.chain().to_string()),
            };
            self.buffer.push(piece).await;
        }
        let outcome = match control.wait().await {
            Ok(status) => Outcome::Ended(status),
            Err(error) => Outcome::Broken(Failure::from(error).body(None)),
        };
        self.outcome.send_replace(Some((outcome, Instant::now())));
        self.buffer.close();
    }

    /// Ends the command with KILL when it still runs after `limit`.
    pub(super) fn limit(self: &Arc<Self>, limit: Duration) {
        let command = Arc::clone(self);
        tokio::spawn(async move {
            let mut ended = command.outcome.subscribe();
            if tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await.is_err() {
                command.timed_out.store(true, Ordering::Relaxed);
                let _ = command.signal(libc::SIGKILL).await;
            }
        });
    }

    /// How its creation is answered.
    pub(crate) fn created(&self, started: bool) -> ExecutionCreated {
        ExecutionCreated { execution_id: self.id.clone(), started, stdin: self.has_stdin }
    }

    /// Waits until the process runs; false when it could not be run.
    pub(super) async fn started(&self) -> boxlite::Result<bool> {
        self.control()?.started().await
    }

    /// Sends a signal.
    pub(super) async fn signal(&self, signal: i32) -> boxlite::Result<()> {
        self.control()?.signal(signal).await
    }

    /// Tells the terminal its size.
    pub(super) async fn resize(&self, size: boxlite::WindowSize) -> boxlite::Result<()> {
        self.control()?.resize(size).await
    }

    /// Ends it now.
    pub(super) async fn kill(&self) -> boxlite::Result<()> {
        self.killed.store(true, Ordering::Relaxed);
        self.signal(libc::SIGKILL).await
    }

    /// Lets go of it: it runs on, its output is discarded, and its input is free for others.
    pub(super) fn release(&self) {
        self.released.cancel();
        lock(&self.control).take();
    }

    /// Whether it was let go of.
    pub(super) fn is_released(&self) -> bool {
        self.released.is_cancelled()
    }

    fn control(&self) -> boxlite::Result<Arc<dyn ExecutionControl>> {
        lock(&self.control)
            .clone()
            .ok_or_else(|| Error::conflict(format!("execution {} was let go of", self.id)))
    }

    /// Counts standard input that arrived.
    pub(super) fn count_input(&self, bytes: usize) {
        self.traffic.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How it ended, if it has.
    pub(super) fn outcome(&self) -> Option<(Outcome, Instant)> {
        self.outcome.borrow().clone()
    }

    /// Whether somebody ended it on purpose.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Whether it ran out of its time.
    pub(super) fn was_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Becomes its client, unless there is one, whose place is taken if `instead`.
    pub(super) async fn attach(self: &Arc<Self>, instead: bool) -> Option<Attached> {
        if instead {
            self.attachment().replaced.cancel();
        }
        let seat = match Arc::clone(&self.seat).try_lock_owned() {
            Err(_) if instead => {
                tokio::time::timeout(REPLACED, Arc::clone(&self.seat).lock_owned()).await.ok()?
            }
            free => free.ok()?,
        };
        let replaced = CancellationToken::new();
        *self.attachment() = Attachment { attached: true, since: Instant::now(), replaced: replaced.clone() };
        Some(Attached { command: Arc::clone(self), replaced, _seat: seat })
    }

    /// Is not to be found any more, except by its first client.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    /// Whether it was evicted.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Since when nobody has been attached; `None` while somebody is.
    pub(super) fn unattended_since(&self) -> Option<Instant> {
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

//! One execution: a command in a box (or a box's main process), whoever may be attached to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxlite::wire::ErrorBody;
use boxlite::{ExecStatus, Execution, ExecutionControl};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::{Buffer, Piece};
use crate::server::failure::Failure;

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
    control: Arc<dyn ExecutionControl>,
    stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
    outcome: watch::Sender<Option<(Outcome, Instant)>>,
    attachment: Mutex<Attachment>,
    killed: AtomicBool,
    timed_out: AtomicBool,
    traffic: Arc<Traffic>,
    /// Lets go of the library's execution, after which the command runs on without us.
    released: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct Attachment {
    attached: bool,
    since: Instant,
}

/// The right to be the one client of a command; given back when dropped.
pub(super) struct Attached(Arc<Command>);

impl Drop for Attached {
    fn drop(&mut self) {
        *self.0.attachment() = Attachment { attached: false, since: Instant::now() };
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
        let feed = stdin.map(feed);
        let command = Arc::new(Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            box_id,
            box_name,
            began: Instant::now(),
            began_at: Timestamp::now(),
            abandoned,
            buffer: Buffer::default(),
            control: Arc::clone(&control),
            stdin: Mutex::new(feed),
            outcome,
            attachment: Mutex::new(Attachment { attached: false, since: Instant::now() }),
            killed: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            traffic,
            released: CancellationToken::new(),
        });
        let (reader, released) = (Arc::clone(&command), command.released.clone());
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
                Err(error) => Piece::Trouble(error.to_string()),
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
                let _ = command.control.signal(libc::SIGKILL).await;
            }
        });
    }

    /// Waits until the process runs; false when it could not be run.
    pub(super) async fn started(&self) -> boxlite::Result<bool> {
        self.control.started().await
    }

    /// Sends a signal.
    pub(super) async fn signal(&self, signal: i32) -> boxlite::Result<()> {
        self.control.signal(signal).await
    }

    /// Tells the terminal its size.
    pub(super) async fn resize(&self, size: boxlite::WindowSize) -> boxlite::Result<()> {
        self.control.resize(size).await
    }

    /// Ends it now.
    pub(super) async fn kill(&self) -> boxlite::Result<()> {
        self.killed.store(true, Ordering::Relaxed);
        self.signal(libc::SIGKILL).await
    }

    /// Lets go of it: it runs on and its output is discarded.
    pub(super) fn release(&self) {
        self.released.cancel();
        self.close_stdin();
    }

    /// Hands over standard input, waiting while the command does not read; what a command no longer reads is dropped.
    pub(super) async fn feed(&self, bytes: Bytes) {
        let sender = lock(&self.stdin).clone();
        if let Some(sender) = sender {
            self.traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let _ = sender.send(bytes).await;
        }
    }

    /// Ends standard input.
    pub(super) fn close_stdin(&self) {
        lock(&self.stdin).take();
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

    /// Becomes its client, unless there is one.
    pub(super) fn attach(self: &Arc<Self>) -> Option<Attached> {
        let mut attachment = self.attachment();
        if attachment.attached {
            return None;
        }
        *attachment = Attachment { attached: true, since: Instant::now() };
        Some(Attached(Arc::clone(self)))
    }

    /// Since when nobody has been attached; `None` while somebody is.
    pub(super) fn unattended_since(&self) -> Option<Instant> {
        let attachment = *self.attachment();
        (!attachment.attached).then_some(attachment.since)
    }

    fn attachment(&self) -> MutexGuard<'_, Attachment> {
        lock(&self.attachment)
    }
}

/// Writes standard input in a task of its own, so that what was accepted arrives although the client goes away.
fn feed(mut stdin: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>) -> mpsc::Sender<Bytes> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
                return;
            }
        }
        let _ = stdin.shutdown().await;
    });
    sender
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Talking to a box's shim, from any process of the same user.
//!
//! Each exec, attach or request has a connection of its own, which is how a shim tells that its asker has gone.

mod copy;
mod disk;
mod executions;
mod holder;
mod session;
mod stdin;

use std::io;
use std::path::Path;
use std::time::Duration;

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_proto::{
    ExecSpec, FileStat, Frame, GuestMetrics, GuestProcesses, Op, OpEvent, OpFailure, PROTOCOL_VERSION,
    ProcessExit, ShimError, ShimReply, ShimRequest, ShimStatus, WinSize,
};
use boxlite_types::{Doing, Error, ErrorKind, Execution, Result};
pub use disk::{DiskSwitch, Thaw};
use rustix::process::Signal;
use session::{Session, ShimConnection};
use tokio::io::{AsyncRead, AsyncWrite};

use super::quota::DiskQuota;
use super::socket;

/// The number of the only operation on a connection.
const CHANNEL: u32 = 1;

/// How long a guest may take to confirm that it has what was sent to it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a shim may take to be gone that does not listen any more, before it is looked for otherwise.
const ENDING_TIMEOUT: Duration = Duration::from_secs(1);

/// A running box's shim, reached anew by each call.
#[derive(Debug, Clone)]
pub struct ShimClient {
    paths: BoxPaths,
}

impl ShimClient {
    /// The shim of the box at `paths`, whether or not there is one.
    pub fn new(paths: BoxPaths) -> Self {
        Self { paths }
    }

    /// The box's files on the host.
    pub fn paths(&self) -> &BoxPaths {
        &self.paths
    }

    /// Returns the shim's state of its box; `None` when the box does not run.
    pub async fn status(&self) -> Result<Option<ShimStatus>> {
        let Some(mut connection) = self.try_connect(&ShimRequest::Status).await? else { return Ok(None) };
        match connection.answer().await? {
            Some(ShimReply::Status(status)) => Ok(Some(status)),
            None | Some(ShimReply::Stopped { .. }) => Ok(None),
            Some(other) => Err(unexpected(&other)),
        }
    }

    /// Waits until the guest is up and its main process, if it has one, was started; false when the box ended before
    /// that, in which case [`super::Outcome`] tells why.
    pub async fn wait_up(&self) -> Result<bool> {
        let Some(mut connection) = self.try_connect(&ShimRequest::Op(Op::Ping { id: CHANNEL })).await? else {
            return Ok(false);
        };
        loop {
            match connection.reply().await? {
                Some(ShimReply::Event(OpEvent::Pong { .. })) => return Ok(true),
                None
                | Some(ShimReply::Stopped { .. } | ShimReply::Error { kind: ShimError::NotRunning, .. }) => {
                    return Ok(false);
                }
                Some(ShimReply::Error { kind, message }) => return Err(refusal(kind, message)),
                Some(_) => {}
            }
        }
    }

    /// Runs a command in the box.
    ///
    /// # Errors
    /// `Conflict` when the box does not run.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Execution> {
        let stdin = spec.stdin;
        let connection = self.connect(&ShimRequest::Op(Op::Exec { id: CHANNEL, spec })).await?;
        Ok(Session::start(connection, CHANNEL).into_execution(stdin, self.clone()))
    }

    /// Connects to the main process: its output from position `from` on (`None`: from now on) as far as the log
    /// reaches, and with `stdin` its input, unless another client has it. Nothing is lost when the box ends first:
    /// the rest is read from the log.
    ///
    /// # Errors
    /// `Conflict` when the box does not run.
    pub async fn attach(&self, from: Option<u64>, stdin: bool, tty: Option<WinSize>) -> Result<Execution> {
        let connection = self.connect(&ShimRequest::Attach { id: CHANNEL, from, stdin, tty }).await?;
        Ok(Session::attach(connection, CHANNEL, from, self.paths.clone()).into_execution(stdin, self.clone()))
    }

    /// Sends a signal to the main process.
    pub async fn kill(&self, signo: i32) -> Result<()> {
        self.done(&ShimRequest::Kill { signo }).await
    }

    /// Gives the box another disk quota; a guest that it leaves room goes on.
    ///
    /// # Errors
    /// `Conflict` when the box does not run.
    pub async fn set_disk_quota(&self, quota: Option<DiskQuota>) -> Result<()> {
        self.done(&ShimRequest::SetDiskQuota { bytes: quota.map(|DiskQuota(bytes)| bytes) }).await
    }

    /// Pauses the guest for its user, or lets it go on as far as the user is concerned.
    ///
    /// # Errors
    /// `Conflict` when the box does not run, comes up or stops.
    pub async fn set_paused(&self, paused: bool) -> Result<()> {
        self.done(&ShimRequest::SetPaused { paused }).await
    }

    /// Stops the box and waits until shim and QEMU are gone; a box that does not run is left alone.
    ///
    /// `signo` begins it (`None`: the box's stop signal); after `timeout_ms` comes SIGKILL.
    pub async fn stop(&self, signo: Option<i32>, timeout_ms: u64) -> Result<()> {
        let request = ShimRequest::Stop { signo, timeout_ms };
        let gone = self.until_gone(&request);
        if self.listens().await? {
            return gone.await.map(drop);
        }
        // Its end is near, or its socket was deleted.
        match tokio::time::timeout(ENDING_TIMEOUT, gone).await {
            Ok(gone) => return gone.map(drop),
            // A stop in order, with the stop signal and the grace of the box's own options.
            Err(_) if signo == Some(Signal::KILL.as_raw()) => drop(self.signal_shim(Signal::KILL)?),
            Err(_) => drop(self.signal_shim(Signal::TERM)?),
        }
        wait_until_gone(&self.paths).await
    }

    /// Signals the shim that nobody reaches through its socket; says whether there is one.
    fn signal_shim(&self, signal: Signal) -> Result<bool> {
        holder::signal_shim(&self.paths.shim_lock(), signal)
    }

    /// Waits until shim and QEMU are gone; returns how the main process ended, where the shim could still say it.
    pub async fn wait(&self) -> Result<Option<ProcessExit>> {
        self.until_gone(&ShimRequest::Wait).await
    }

    /// Whether a shim listens, which it does from right before its box's start is reported until its end.
    pub async fn listens(&self) -> Result<bool> {
        Ok(socket::connect(&self.paths.socket()).await?.is_some())
    }

    /// Kills a shim that does not answer, and QEMU with it, and waits until both are gone.
    pub async fn kill_shim(&self) -> Result<()> {
        let path = self.paths.socket();
        if let Some(stream) = socket::connect(&path).await? {
            let credentials = stream.peer_cred().doing("asking who listens on", &path)?;
            let shim = credentials.pid().and_then(rustix::process::Pid::from_raw);
            let shim = shim.ok_or_else(|| Error::bug("the shim's socket has no owner").at(&path))?;
            // The connection stands, so the number is still the listener's.
            rustix::process::kill_process(shim, rustix::process::Signal::KILL)
                .doing("killing the shim of", &path)?;
        } else if tokio::time::timeout(ENDING_TIMEOUT, wait_until_gone(&self.paths)).await.is_err() {
            self.signal_shim(Signal::KILL)?;
        }
        wait_until_gone(&self.paths).await
    }

    async fn until_gone(&self, request: &ShimRequest) -> Result<Option<ProcessExit>> {
        let mut ended = None;
        if let Some(mut connection) = self.try_connect(request).await? {
            loop {
                match connection.reply().await? {
                    None => break,
                    Some(ShimReply::Stopped { status }) => {
                        ended = status;
                        break;
                    }
                    Some(ShimReply::Error { kind, message }) => return Err(refusal(kind, message)),
                    Some(_) => {}
                }
            }
        }
        wait_until_gone(&self.paths).await?;
        Ok(ended)
    }

    /// Unpacks the tar stream `archive` at `dest` in the guest; returns the archive's bytes.
    ///
    /// The archive's top-level entry is named after the source, or `.` for a directory's contents.
    pub async fn copy_in(
        &self,
        dest: &str,
        keep_owners: bool,
        archive: impl AsyncRead + Unpin,
    ) -> Result<u64> {
        let op = Op::CopyIn { id: CHANNEL, dest: dest.to_owned(), keep_owners };
        let session = Session::start(self.connect(&ShimRequest::Op(op)).await?, CHANNEL);
        copy::send_archive(session, archive).await
    }

    /// Packs `path` of the guest into a tar stream; an error of the guest ends the stream as an I/O error whose
    /// source is the [`Error`].
    pub async fn copy_out(&self, path: &str, follow: bool) -> Result<impl AsyncRead + Send + Unpin + use<>> {
        let op = Op::CopyOut { id: CHANNEL, path: path.to_owned(), follow };
        let session = Session::start(self.connect(&ShimRequest::Op(op)).await?, CHANNEL);
        copy::receive_archive(session).await
    }

    /// Lists the files on the box's disk, and packs those that are asked for: what the guest sends, and where it is
    /// answered (`boxlite_archive::tree`). An error of the guest ends what it sends as an I/O error whose source is the
    /// [`Error`].
    pub async fn tree(
        &self,
    ) -> Result<(impl AsyncRead + Send + Unpin + use<>, impl AsyncWrite + Send + Unpin + use<>)> {
        let op = Op::Tree { id: CHANNEL };
        let session = Session::start(self.connect(&ShimRequest::Op(op)).await?, CHANNEL);
        Ok(copy::converse(session))
    }

    /// Connects to a TCP port of the guest's loopback: what the service sends, and where it is answered. The end of the
    /// input ends this side of the connection only; dropping both ends closes it.
    ///
    /// # Errors
    /// `NotFound` when nothing listens there, `Conflict` when the box does not run.
    pub async fn dial(
        &self,
        port: u16,
    ) -> Result<(impl AsyncRead + Send + Unpin + use<>, impl AsyncWrite + Send + Unpin + use<>)> {
        let op = Op::Dial { id: CHANNEL, port };
        let session = Session::start(self.connect(&ShimRequest::Op(op)).await?, CHANNEL);
        session.started().await?;
        Ok(copy::converse(session))
    }

    /// Describes a path in the guest.
    pub async fn stat(&self, path: &str) -> Result<FileStat> {
        match self.one_event(Op::Stat { id: CHANNEL, path: path.to_owned() }).await? {
            OpEvent::Stat { stat, .. } => Ok(stat),
            other => Err(Error::bug(format!("the shim answered a stat with {other:?}"))),
        }
    }

    /// Returns the guest's consumption.
    pub async fn metrics(&self) -> Result<GuestMetrics> {
        match self.one_event(Op::Metrics { id: CHANNEL }).await? {
            OpEvent::Metrics { metrics, .. } => Ok(metrics),
            other => Err(Error::bug(format!("the shim answered a question for metrics with {other:?}"))),
        }
    }

    /// The processes of the guest.
    pub async fn processes(&self) -> Result<GuestProcesses> {
        match self.one_event(Op::Processes { id: CHANNEL }).await? {
            OpEvent::Processes { list, .. } => Ok(list),
            other => Err(Error::bug(format!("the shim answered a question for processes with {other:?}"))),
        }
    }

    /// A round trip to the guest's agent.
    pub async fn ping(&self) -> Result<()> {
        self.one_event(Op::Ping { id: CHANNEL }).await.map(drop)
    }

    /// Waits until the guest shows that it is alive, and so has taken what was sent before; a box that is ending needs not.
    ///
    /// # Errors
    /// `Unavailable` when it does not within some seconds.
    pub async fn answers(&self) -> Result<()> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.ping()).await {
            Ok(Err(error)) if error.kind() == ErrorKind::Conflict => Ok(()),
            Ok(answered) => answered,
            Err(_) => {
                let message = format!("the box has not answered for {} s", ANSWER_TIMEOUT.as_secs());
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    async fn one_event(&self, op: Op) -> Result<OpEvent> {
        let mut connection = self.connect(&ShimRequest::Op(op)).await?;
        match connection.answer().await? {
            Some(ShimReply::Event(OpEvent::Failed { kind, message, .. })) => Err(failure(kind, message)),
            Some(ShimReply::Event(event)) => Ok(event),
            Some(ShimReply::Stopped { .. }) | None => Err(not_running(self.paths.root())),
            Some(other) => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: &ShimRequest) -> Result<()> {
        match self.connect(request).await?.answer().await? {
            Some(ShimReply::Done) => Ok(()),
            Some(ShimReply::Stopped { .. }) | None => Err(not_running(self.paths.root())),
            Some(other) => Err(unexpected(&other)),
        }
    }

    async fn connect(&self, request: &ShimRequest) -> Result<ShimConnection> {
        self.try_connect(request).await?.ok_or_else(|| not_running(self.paths.root()))
    }

    /// Connects, and returns what the shim is able to do.
    async fn greet(&self) -> Result<(ShimConnection, Vec<String>)> {
        let gone = || not_running(self.paths.root());
        let stream = socket::connect(&self.paths.socket()).await?.ok_or_else(gone)?;
        let mut connection = ShimConnection::new(stream);
        connection.send(&ShimRequest::Hello { version: PROTOCOL_VERSION })?;
        match connection.reply().await? {
            Some(ShimReply::Hello { abilities, .. }) => Ok((connection, abilities)),
            Some(other) => Err(unexpected(&other)),
            None => Err(gone()),
        }
    }

    /// Connects and asks without waiting for anything; `None` when nobody listens.
    async fn try_connect(&self, request: &ShimRequest) -> Result<Option<ShimConnection>> {
        let path = self.paths.socket();
        let Some(stream) = socket::connect(&path).await? else { return Ok(None) };
        let connection = ShimConnection::new(stream);
        for message in [&ShimRequest::Hello { version: PROTOCOL_VERSION }, request] {
            let frame = Frame::control(message)
                .map_err(|error| Error::invalid("the request does not fit a frame").because(error))?;
            connection.sink.send(frame);
        }
        Ok(Some(connection))
    }
}

/// Waits until no process of the box at `paths` is left: its `shim.lock` can be taken.
///
/// Giving up (dropping the future) leaves a thread behind that waits on; it holds up neither runtime nor exit.
pub async fn wait_until_gone(paths: &BoxPaths) -> Result<()> {
    let path = paths.shim_lock();
    // Shared, so that those who wait never look to each other like a living shim.
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("opening the shim's lock", path, error)),
    };
    let again = file.try_clone().doing("waiting for", &path)?;
    if Lock::try_shared_on(again, &path)?.is_some() {
        return Ok(());
    }
    let (taken, answer) = tokio::sync::oneshot::channel();
    // Not one of the runtime's blocking threads: those are waited for when the runtime ends.
    std::thread::Builder::new()
        .name("boxlite-wait".into())
        .spawn(move || taken.send(Lock::shared_on(file, &path).map(drop)))
        .doing("waiting for the end of", paths.root())?;
    answer.await.map_err(|error| Error::bug("waiting for a lock was interrupted").because(error))?
}

fn not_running(box_dir: &Path) -> Error {
    let name = box_dir.file_name().unwrap_or_default().to_string_lossy();
    Error::conflict(format!("the box {name} is not running"))
}

fn refusal(kind: ShimError, message: String) -> Error {
    let kind = match kind {
        ShimError::Version => ErrorKind::Unsupported,
        ShimError::NotRunning | ShimError::Conflict => ErrorKind::Conflict,
        ShimError::Invalid => ErrorKind::InvalidInput,
        ShimError::Vm => ErrorKind::Io,
        ShimError::Unknown => ErrorKind::NotFound,
        ShimError::TooMany => ErrorKind::Busy,
        ShimError::Unavailable => ErrorKind::Unavailable,
    };
    Error::new(kind, message)
}

fn failure(kind: OpFailure, message: String) -> Error {
    let kind = match kind {
        OpFailure::NotFound => ErrorKind::NotFound,
        OpFailure::WrongKind => ErrorKind::Conflict,
        OpFailure::BadArchive => ErrorKind::Corrupt,
        OpFailure::NoSpace => ErrorKind::ResourceExhausted,
        OpFailure::Invalid => ErrorKind::InvalidInput,
        OpFailure::Io => ErrorKind::Io,
    };
    Error::new(kind, message)
}

fn unexpected(reply: &ShimReply) -> Error {
    match reply {
        ShimReply::Error { kind, message } => refusal(*kind, message.clone()),
        other => Error::bug(format!("the shim gave an unexpected answer: {other:?}")),
    }
}

fn connection_lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the box's shim was lost").because(error)
}

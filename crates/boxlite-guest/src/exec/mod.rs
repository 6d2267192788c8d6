//! Operations that run in a child process: execs, copies, and descriptions of files.
//!
//! # Layout
//!
//! | module | does |
//! | --- | --- |
//! | `spawn` | forks the child |
//! | `ends` | makes the pipes or the terminal between agent and child |
//! | `init_system` | puts an init system into namespaces of its own, and other operations into them |
//! | `child` | runs in the child: becomes the program, or carries out the operation |
//! | `program`, `user` | find a program and its environment; resolve users and groups |
//! | `limits` | the limits of the program |
//! | `copy_in`, `copy_out`, `tree`, `dial`, `freeze`, `stat`, `processes` | the operations other than execs, in the child |
//! | `probe` | a probe of the box's health: a program, and its supervisor in a child |
//! | `stream` | moves bytes between the agent's ends and the port, within their windows |
//! | `op_error` | why an operation other than an exec failed |
//!
//! # Protocol
//!
//! A child reports over a pipe. An exec's report closes empty when the program has taken over, or carries an `ExecFailed`;
//! a dial's closes empty when the connection stands, or carries a `Failed`; any other operation's carries its one result. The last event is sent when the child has been reaped, its report has
//! ended, and its output has been sent.

mod child;
mod copy_in;
mod copy_out;
mod dial;
mod ends;
mod freeze;
mod init_system;
mod limits;
mod op_error;
mod probe;
mod processes;
mod program;
mod spawn;
mod stat;
mod stream;
mod tree;
mod user;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use boxlite_proto::{
    BootConfig, ExecFailure, FromGuest, Op, OpEvent, OpFailure, ProcessExit, Stream, WinSize,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::port::{Port, PortError};
use crate::{linux, metrics};
pub(crate) use probe::{ProbeChild, failed as failed_probe};
pub(crate) use stream::READ_CHUNK;
use stream::{ProcessInput, ProcessOutput};

/// Most bytes of a report. A report is one small message, and the rest of a longer one is ignored.
const MAX_REPORT: usize = 1024 * 1024;

/// A descriptor to poll, and the events to poll it for.
pub(crate) type PollInterest<'a> = (BorrowedFd<'a>, PollFlags);

enum TaskPhase {
    /// The child has not reported yet; the program of an exec has not taken over.
    Starting,
    /// The child has reported; the program of an exec is running.
    Started,
}

/// The kind of process that the child of an operation becomes, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskKind {
    /// A program of the box's; it outlives the host.
    Exec,
    /// One end of a connection.
    Dial,
    /// A copy, or a description.
    Other,
}

impl TaskKind {
    fn of(op: &Op) -> Self {
        match op {
            Op::Exec { .. } => Self::Exec,
            Op::Dial { .. } => Self::Dial,
            _ => Self::Other,
        }
    }

    /// Whether `Started` comes first, and `Exited` last.
    fn is_process(self) -> bool {
        self != Self::Other
    }
}

/// One operation and its child.
pub(crate) struct Task {
    id: u32,
    pid: Pid,
    kind: TaskKind,
    /// Its child may have frozen the root filesystem, for which the kernel's pace was another.
    freezes: Option<freeze::KernelPace>,
    phase: TaskPhase,
    report: Option<OwnedFd>,
    report_bytes: Vec<u8>,
    input: Option<ProcessInput>,
    outputs: Vec<ProcessOutput>,
    terminal: Option<OwnedFd>,
    status: Option<ProcessExit>,
}

impl Task {
    /// Starts a child for `op`, beside the init system `init` if the box has one. On failure returns the event to answer with.
    pub(crate) fn start(op: Op, config: &BootConfig, init: Option<Pid>) -> Result<Self, OpEvent> {
        let id = op.id();
        let kind = TaskKind::of(&op);
        let freezes = matches!(op, Op::Freeze { .. }).then(freeze::KernelPace::present);
        let spawned = spawn::spawn(op, config, init).map_err(|error| {
            let message = format!("starting a process in the box failed: {error}");
            failure(kind, id, message)
        })?;
        let ends = spawned.ends;
        Ok(Self {
            id,
            pid: spawned.pid,
            kind,
            freezes,
            phase: TaskPhase::Starting,
            report: Some(spawned.report),
            report_bytes: Vec::new(),
            input: ends.stdin.map(|fd| ProcessInput::new(id, fd, ends.terminal.is_some())),
            outputs: ends
                .outputs
                .into_iter()
                .map(|(stream, fd)| ProcessOutput::new(id, stream, fd))
                .collect(),
            terminal: ends.terminal,
            status: None,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the child has not been reaped yet. After that, its process id may belong to another process.
    pub(crate) fn is_running(&self) -> bool {
        self.status.is_none()
    }

    /// Records that the process has closed its input.
    pub(crate) fn input_broke(&mut self, port: &mut Port) {
        if let Some(input) = &mut self.input {
            input.broke(port);
        }
    }

    /// Records how the child ended.
    pub(crate) fn reaped(&mut self, status: ProcessExit, now: Instant) {
        self.status = Some(status);
        if let Some(pace) = self.freezes.take() {
            // Whatever ended the child: nothing else would thaw the filesystem.
            freeze::thaw_root();
            pace.restore();
        }
        for output in &mut self.outputs {
            output.writer_ended(now);
        }
    }

    /// Signals the process if it is still running.
    pub(crate) fn signal(&self, signo: i32) {
        if self.status.is_none() {
            let _ = linux::signal(self.pid, signo);
        }
    }

    /// Resizes the terminal, if the process runs on one.
    pub(crate) fn resize(&self, size: WinSize) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, ends::winsize(size));
        }
    }

    /// Takes input for the process.
    pub(crate) fn write_input(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        port: &mut Port,
    ) -> Result<(), PortError> {
        match (&mut self.input, stream) {
            (Some(input), Stream::Stdin) => input.accept(bytes, port),
            _ => Ok(()),
        }
    }

    /// Records that the host has sent all of the input.
    pub(crate) fn input_ended(&mut self, stream: Stream, port: &mut Port) {
        if let (Some(input), Stream::Stdin) = (&mut self.input, stream) {
            input.end();
            input.write(port);
        }
    }

    /// Records credit that the host granted for an output.
    pub(crate) fn granted(&mut self, stream: Stream, bytes: u32) -> Result<(), PortError> {
        self.outputs
            .iter_mut()
            .find(|output| output.stream() == stream)
            .map_or(Ok(()), |output| output.granted(bytes))
    }

    /// Discards the rest of an output, which the host does not want any more.
    pub(crate) fn discard_output(&mut self, stream: Stream) {
        if let Some(output) = self.outputs.iter_mut().find(|output| output.stream() == stream) {
            output.discard();
        }
    }

    /// Handles the loss of the host: input ends, output is discarded, and what has no use any more, as a copy, is killed.
    pub(crate) fn abandoned(&mut self, port: &mut Port) {
        self.input_ended(Stream::Stdin, port);
        self.outputs.iter_mut().for_each(ProcessOutput::discard);
        if self.kind != TaskKind::Exec {
            self.signal(libc::SIGKILL);
        }
    }

    /// The descriptors to poll. Output is polled only while the port has room for it.
    pub(crate) fn interests(&self, room: bool) -> impl Iterator<Item = PollInterest<'_>> {
        let report = self.report.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN));
        let input = self.input.as_ref().and_then(ProcessInput::interest);
        let started = !matches!(self.phase, TaskPhase::Starting) || !self.kind.is_process();
        let outputs =
            self.outputs.iter().filter(move |_| started).filter_map(move |output| output.interest(room));
        report.into_iter().chain(input).chain(outputs)
    }

    /// When to look again even if no descriptor is ready.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outputs.iter().filter_map(ProcessOutput::deadline).min()
    }

    /// Moves as many bytes as possible without blocking.
    pub(crate) fn pump(
        &mut self,
        scratch: &mut [u8],
        port: &mut Port,
        now: Instant,
    ) -> Result<(), PortError> {
        self.read_report(port)?;
        if let Some(input) = &mut self.input {
            input.write(port);
        }
        // A process sends nothing before `Started`; other operations have no such event.
        if self.kind.is_process() && matches!(self.phase, TaskPhase::Starting) {
            return Ok(());
        }
        for output in &mut self.outputs {
            output.read(scratch, port, now);
        }
        Ok(())
    }

    fn read_report(&mut self, port: &mut Port) -> Result<(), PortError> {
        let Some(report) = &self.report else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(report, &mut buffer) {
                Ok(n) if n > 0 && self.report_bytes.len() < MAX_REPORT => {
                    self.report_bytes.extend_from_slice(&buffer[..n]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(_) => break,
            }
        }
        self.report = None;
        self.phase = TaskPhase::Started;
        if self.kind.is_process() && self.report_bytes.is_empty() {
            let pid = self.pid.as_raw_nonzero().get() as u32;
            port.send(&FromGuest::Event(OpEvent::Started { id: self.id, pid }))?;
        }
        Ok(())
    }

    /// Returns the last event once the child has ended and all of its output was sent.
    pub(crate) fn last_event(&self, now: Instant) -> Option<OpEvent> {
        let status = self.status?;
        if self.report.is_some() || !self.outputs.iter().all(|output| output.is_done(now)) {
            return None;
        }
        if self.kind.is_process() && self.report_bytes.is_empty() {
            return Some(OpEvent::Exited { id: self.id, status, memory_kills: metrics::memory_kills() });
        }
        let reported = serde_json::from_slice::<OpEvent>(&self.report_bytes).ok();
        Some(reported.filter(|event| event.id() == self.id).unwrap_or_else(|| {
            let message = format!("the operation ended without a result ({status:?})");
            failure(self.kind, self.id, message)
        }))
    }

    /// Ends the streams towards the host. Call it right before the last event is sent.
    pub(crate) fn finish(&mut self, port: &mut Port) {
        for output in &mut self.outputs {
            output.finish(port);
        }
    }
}

/// The last event of an operation that the agent could not carry out.
fn failure(kind: TaskKind, id: u32, message: String) -> OpEvent {
    match kind {
        TaskKind::Exec => OpEvent::ExecFailed { id, kind: ExecFailure::Resources, message },
        TaskKind::Dial | TaskKind::Other => OpEvent::Failed { id, kind: OpFailure::Io, message },
    }
}

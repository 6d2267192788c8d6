//! Operations that run in a child process: execs, copies, and descriptions of files.
//!
//! A child tells how it went over a report pipe: an exec's closes when the program has taken over or carries a failure
//! before that; any other operation's carries its one result.

mod child;
mod copy_in;
mod copy_out;
mod outcome;
mod program;
mod spawn;
mod stat;
mod stream;
mod user;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use boxlite_proto::{ExecFailure, FromGuest, Op, OpEvent, OpFailure, ProcessExit, Stream, WinSize};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::linux;
use crate::port::{Port, PortError};
pub(crate) use stream::SCRATCH;
use stream::{Inlet, Outlet};

/// A report is one small message; a child that writes more is not believed.
const MAX_REPORT: usize = 64 * 1024;

/// A descriptor to wait on, and what its readiness would allow.
pub(crate) type Interest<'a> = (BorrowedFd<'a>, PollFlags);

enum Phase {
    /// The child is preparing; an exec's program has not taken over yet.
    Starting,
    /// The program runs; also the only phase of other operations once they have reported.
    Started,
}

/// One operation and its child.
pub(crate) struct Task {
    id: u32,
    pid: Pid,
    is_exec: bool,
    phase: Phase,
    report: Option<OwnedFd>,
    report_bytes: Vec<u8>,
    inlet: Option<Inlet>,
    outlets: Vec<Outlet>,
    terminal: Option<OwnedFd>,
    status: Option<ProcessExit>,
}

impl Task {
    /// Starts a child for `op`; on failure returns the event to answer with.
    pub(crate) fn start(op: Op, hostname: &str) -> Result<Self, OpEvent> {
        let id = op.id();
        let is_exec = matches!(op, Op::Exec { .. });
        let spawned = spawn::spawn(op, hostname).map_err(|error| {
            let message = format!("starting a process in the box failed: {error}");
            if is_exec {
                OpEvent::ExecFailed { id, kind: ExecFailure::Resources, message }
            } else {
                OpEvent::Failed { id, kind: OpFailure::Io, message }
            }
        })?;
        let ends = spawned.ends;
        Ok(Self {
            id,
            pid: spawned.pid,
            is_exec,
            phase: Phase::Starting,
            report: Some(spawned.report),
            report_bytes: Vec::new(),
            inlet: ends.stdin.map(|fd| Inlet::new(id, fd, ends.terminal.is_some())),
            outlets: ends.outputs.into_iter().map(|(stream, fd)| Outlet::new(id, stream, fd)).collect(),
            terminal: ends.terminal,
            status: None,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the child has not been collected yet; only then is its process id its own.
    pub(crate) fn is_running(&self) -> bool {
        self.status.is_none()
    }

    /// The process has closed its input.
    pub(crate) fn input_broke(&mut self, port: &mut Port) {
        if let Some(inlet) = &mut self.inlet {
            inlet.broke(port);
        }
    }

    /// The child has ended.
    pub(crate) fn reaped(&mut self, status: ProcessExit, now: Instant) {
        self.status = Some(status);
        for outlet in &mut self.outlets {
            outlet.writer_ended(now);
        }
    }

    /// Signals the process, if it still runs.
    pub(crate) fn signal(&self, signo: i32) {
        if self.status.is_none() {
            let _ = linux::signal(self.pid, signo);
        }
    }

    pub(crate) fn resize(&self, size: WinSize) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, spawn::winsize(size));
        }
    }

    /// Takes input for the process.
    pub(crate) fn input(&mut self, stream: Stream, bytes: &[u8], port: &mut Port) -> Result<(), PortError> {
        match (&mut self.inlet, stream) {
            (Some(inlet), Stream::Stdin) => inlet.accept(bytes, port),
            _ => Ok(()),
        }
    }

    pub(crate) fn input_ended(&mut self, stream: Stream, port: &mut Port) {
        if let (Some(inlet), Stream::Stdin) = (&mut self.inlet, stream) {
            inlet.end();
            inlet.write(port);
        }
    }

    pub(crate) fn granted(&mut self, stream: Stream, bytes: u32) -> Result<(), PortError> {
        self.outlets
            .iter_mut()
            .find(|outlet| outlet.stream() == stream)
            .map_or(Ok(()), |outlet| outlet.granted(bytes))
    }

    /// Nobody wants this stream any more.
    pub(crate) fn unwanted(&mut self, stream: Stream) {
        if let Some(outlet) = self.outlets.iter_mut().find(|outlet| outlet.stream() == stream) {
            outlet.discard();
        }
    }

    /// The host has gone: input ends, output goes nowhere, and a copy, which serves nobody now, is given up.
    pub(crate) fn abandoned(&mut self, port: &mut Port) {
        self.input_ended(Stream::Stdin, port);
        self.outlets.iter_mut().for_each(Outlet::discard);
        if !self.is_exec {
            self.signal(libc::SIGKILL);
        }
    }

    /// Descriptors to wait on; output only while the port has room for it.
    pub(crate) fn interests(&self, room: bool) -> impl Iterator<Item = Interest<'_>> {
        let report = self.report.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN));
        let inlet = self.inlet.as_ref().and_then(Inlet::interest);
        let started = !matches!(self.phase, Phase::Starting) || !self.is_exec;
        let outlets =
            self.outlets.iter().filter(move |_| started).filter_map(move |outlet| outlet.interest(room));
        report.into_iter().chain(inlet).chain(outlets)
    }

    /// When to look again although nothing is ready.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outlets.iter().filter_map(Outlet::deadline).min()
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn pump(
        &mut self,
        scratch: &mut [u8],
        port: &mut Port,
        now: Instant,
    ) -> Result<(), PortError> {
        self.read_report(port)?;
        if let Some(inlet) = &mut self.inlet {
            inlet.write(port);
        }
        // Nothing of an exec is sent before `Started`; other operations have no such event.
        if self.is_exec && matches!(self.phase, Phase::Starting) {
            return Ok(());
        }
        for outlet in &mut self.outlets {
            outlet.read(scratch, port, now);
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
        self.phase = Phase::Started;
        if self.is_exec && self.report_bytes.is_empty() {
            let pid = self.pid.as_raw_nonzero().get() as u32;
            port.send(&FromGuest::Event(OpEvent::Started { id: self.id, pid }))?;
        }
        Ok(())
    }

    /// The last event, once the child has ended and everything it left was sent.
    pub(crate) fn last_event(&self, now: Instant) -> Option<OpEvent> {
        let status = self.status?;
        if self.report.is_some() || !self.outlets.iter().all(|outlet| outlet.is_done(now)) {
            return None;
        }
        if self.is_exec && self.report_bytes.is_empty() {
            return Some(OpEvent::Exited { id: self.id, status });
        }
        let reported = serde_json::from_slice::<OpEvent>(&self.report_bytes).ok();
        Some(reported.filter(|event| event.id() == self.id).unwrap_or_else(|| {
            let message = format!("the operation ended without a result ({status:?})");
            if self.is_exec {
                OpEvent::ExecFailed { id: self.id, kind: ExecFailure::Resources, message }
            } else {
                OpEvent::Failed { id: self.id, kind: OpFailure::Io, message }
            }
        }))
    }

    /// Ends the streams towards the host; to be called right before the last event is sent.
    pub(crate) fn finish(&mut self, port: &mut Port) {
        for outlet in &mut self.outlets {
            outlet.finish(port);
        }
    }
}

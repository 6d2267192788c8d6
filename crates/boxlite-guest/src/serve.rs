//! The event loop of a guest that is up: one thread, one poll, no blocking call.
//!
//! # Limits
//!
//! At most [`MAX_TASKS`] operations run at once. Each has a turn per round, and rounds start with another one each time,
//! so that no operation keeps the port from the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use boxlite_proto::{
    BootConfig, ExecFailure, Frame, FromGuest, Op, OpEvent, OpFailure, ProcessExit, ProtoError, ToGuest,
};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::exec::{READ_CHUNK, Task};
use crate::health::HealthProber;
use crate::linux::{self, Signals};
use crate::port::{self, Port, PortError};
use crate::{boot, metrics};

/// Most operations at once; each may hold a window of input in memory.
const MAX_TASKS: usize = 128;
/// How long processes may take to die of SIGKILL before the guest goes down without them.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long output that processes left behind may delay the end of a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How far a shutdown has come.
enum ShutdownPhase {
    /// No shutdown was requested.
    NotRequested,
    /// SIGTERM was sent; SIGKILL follows at this time.
    Terminating(Instant),
    /// SIGKILL was sent; the guest stops waiting for processes at this time.
    Killing(Instant),
    /// No process is left; their output is sent until this time at the latest.
    Draining(Instant),
}

/// A guest that is up, and the operations in it.
struct GuestLoop<'a> {
    port: &'a mut Port,
    signals: &'a Signals,
    config: &'a BootConfig,
    tasks: BTreeMap<u32, Task>,
    /// `None` where nothing is to be checked.
    health: Option<HealthProber<'a>>,
    /// The box's init system, while it runs.
    init: Option<Pid>,
    shutdown: ShutdownPhase,
    /// The operation whose turn is first in the next round.
    turn: u32,
}

/// Serves until the guest has been shut down; `Down` is then queued.
pub(crate) fn serve(port: &mut Port, signals: &Signals, config: &BootConfig) -> Result<(), PortError> {
    let mut guest = GuestLoop {
        port,
        signals,
        config,
        tasks: BTreeMap::new(),
        health: HealthProber::of(config, Instant::now()),
        init: None,
        shutdown: ShutdownPhase::NotRequested,
        turn: 0,
    };
    let mut scratch = vec![0; READ_CHUNK];
    loop {
        guest.wait()?;
        guest.signals.drain();
        let children_left = guest.reap();
        guest.take_requests()?;
        guest.pump(&mut scratch)?;
        guest.check_health()?;
        guest.port.write()?;
        if guest.advance_shutdown(children_left) {
            boot::take_down(config);
            return guest.port.send(&FromGuest::Down);
        }
    }
}

impl GuestLoop<'_> {
    fn wait(&mut self) -> Result<(), PortError> {
        let room = self.port.has_room();
        let mut fds = vec![PollFd::new(self.signals, PollFlags::IN)];
        if !self.port.interest().is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.port.fd(), self.port.interest()));
        }
        if let Some((fd, flags)) = self.health.as_ref().and_then(HealthProber::interest) {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let first = fds.len();
        let mut owners = Vec::new();
        for (id, task) in &self.tasks {
            for (fd, flags) in task.interests(room) {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                owners.push((*id, flags));
            }
        }
        let shutdown_step = match self.shutdown {
            ShutdownPhase::NotRequested => None,
            ShutdownPhase::Terminating(at) | ShutdownPhase::Killing(at) | ShutdownPhase::Draining(at) => {
                Some(at)
            }
        };
        let probe = self.health.as_ref().map(HealthProber::deadline);
        let deadline = self.tasks.values().filter_map(Task::deadline).chain(shutdown_step).chain(probe).min();
        let limit = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        port::wait(&mut fds, limit)?;
        // A descriptor polled for errors alone is an input; an error means that its process closed it.
        let broken: Vec<u32> = fds[first..]
            .iter()
            .zip(owners)
            .filter(|(fd, (_, asked))| asked.is_empty() && fd.revents().intersects(PollFlags::ERR))
            .map(|(_, (id, _))| id)
            .collect();
        for id in broken {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.input_broke(self.port);
            }
        }
        Ok(())
    }

    /// Reaps every child that has exited, the guest's orphans included. Returns whether any process is left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.child_exited(pid, status),
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn child_exited(&mut self, pid: Pid, status: WaitStatus) {
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ProcessExit::Code(code),
            (None, Some(signo)) => ProcessExit::Signal(signo),
            (None, None) => return,
        };
        if self.init == Some(pid) {
            self.init = None;
        }
        if let Some(health) = &mut self.health {
            health.child_exited(pid);
        }
        if let Some(task) = self.tasks.values_mut().find(|task| task.pid() == pid && task.is_running()) {
            task.reaped(status, Instant::now());
        }
    }

    fn take_requests(&mut self) -> Result<(), PortError> {
        let mut frames = Vec::new();
        let host_has_gone = self.port.read(&mut frames)?;
        for frame in frames {
            self.take(frame)?;
        }
        if host_has_gone {
            for task in self.tasks.values_mut() {
                task.abandoned(self.port);
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame) -> Result<(), PortError> {
        // Frames of an unknown channel belong to an operation that has just ended.
        match frame {
            Frame::Control(json) => self.handle(Frame::parse_control(&json)?)?,
            Frame::Data { channel, stream, bytes } => {
                if let Some(task) = self.tasks.get_mut(&channel) {
                    task.write_input(stream, &bytes, self.port)?;
                }
            }
            Frame::Eof { channel, stream } => {
                if let Some(task) = self.tasks.get_mut(&channel) {
                    task.input_ended(stream, self.port);
                }
            }
            Frame::Credit { channel, stream, bytes } => {
                if let Some(task) = self.tasks.get_mut(&channel) {
                    task.granted(stream, bytes)?;
                }
            }
            Frame::Close { channel, stream } => {
                if let Some(task) = self.tasks.get_mut(&channel) {
                    task.discard_output(stream);
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: ToGuest) -> Result<(), PortError> {
        match message {
            ToGuest::Boot(_) => {
                Err(ProtoError::Control("the guest is up and cannot be booted again".to_owned()).into())
            }
            ToGuest::Shutdown { grace_ms } => {
                if matches!(self.shutdown, ShutdownPhase::NotRequested) {
                    let _ = linux::signal_all(libc::SIGTERM);
                    self.health = None;
                    let grace = Duration::from_millis(grace_ms.min(u64::from(u32::MAX)));
                    self.shutdown = ShutdownPhase::Terminating(Instant::now() + grace);
                }
                Ok(())
            }
            ToGuest::SetClock { unix_nanos } => {
                if let Err(trouble) = boot::set_clock(unix_nanos) {
                    linux::kernel_log(&trouble);
                }
                Ok(())
            }
            ToGuest::Op(op) => match op {
                Op::Signal { id, signo } => {
                    if let Some(task) = self.tasks.get(&id) {
                        task.signal(signo);
                    }
                    Ok(())
                }
                Op::Resize { id, size } => {
                    if let Some(task) = self.tasks.get(&id) {
                        task.resize(size);
                    }
                    Ok(())
                }
                Op::Ping { id } => self.answer(OpEvent::Pong { id }),
                Op::Metrics { id } => self.answer(OpEvent::Metrics { id, metrics: metrics::measure() }),
                op @ (Op::Exec { .. }
                | Op::CopyIn { .. }
                | Op::CopyOut { .. }
                | Op::Tree { .. }
                | Op::Dial { .. }
                | Op::Freeze { .. }
                | Op::Stat { .. }
                | Op::Processes { .. }) => self.start(op),
            },
        }
    }

    fn answer(&mut self, event: OpEvent) -> Result<(), PortError> {
        self.port.send(&FromGuest::Event(event))
    }

    fn start(&mut self, op: Op) -> Result<(), PortError> {
        let id = op.id();
        let is_exec = matches!(op, Op::Exec { .. });
        let is_init = matches!(&op, Op::Exec { spec, .. } if spec.init_system);
        let refusal = if self.tasks.contains_key(&id) {
            Some((ExecFailure::Invalid, OpFailure::Invalid, format!("the id {id} is in use")))
        } else if self.tasks.len() >= MAX_TASKS {
            let message = format!("{MAX_TASKS} operations are running already");
            Some((ExecFailure::Resources, OpFailure::Io, message))
        } else if !matches!(self.shutdown, ShutdownPhase::NotRequested) {
            Some((ExecFailure::Resources, OpFailure::Io, "the box is shutting down".to_owned()))
        } else {
            None
        };
        match refusal {
            Some((kind, _, message)) if is_exec => self.answer(OpEvent::ExecFailed { id, kind, message }),
            Some((_, kind, message)) => self.answer(OpEvent::Failed { id, kind, message }),
            None => match Task::start(op, self.config, self.init) {
                Ok(task) => {
                    if is_init {
                        self.init = Some(task.pid());
                    }
                    self.tasks.insert(id, task);
                    Ok(())
                }
                Err(event) => self.answer(event),
            },
        }
    }

    /// Gives every task a turn, starting with another one each round, and sends the last event of those that ended.
    fn pump(&mut self, scratch: &mut [u8]) -> Result<(), PortError> {
        let now = Instant::now();
        let ids: Vec<u32> =
            self.tasks.range(self.turn..).chain(self.tasks.range(..self.turn)).map(|(id, _)| *id).collect();
        self.turn = ids.get(1).copied().unwrap_or(0);
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.pump(scratch, self.port, now)?;
            if let Some(event) = task.last_event(now) {
                task.finish(self.port);
                self.tasks.remove(&id);
                self.answer(event)?;
            }
        }
        Ok(())
    }

    fn check_health(&mut self) -> Result<(), PortError> {
        match &mut self.health {
            Some(health) => health.advance(self.init, self.port, Instant::now()),
            None => Ok(()),
        }
    }

    /// Takes a shutdown one step further. Returns whether the guest may be taken down.
    fn advance_shutdown(&mut self, children_left: bool) -> bool {
        let now = Instant::now();
        match self.shutdown {
            ShutdownPhase::NotRequested => false,
            ShutdownPhase::Terminating(_) | ShutdownPhase::Killing(_) if !children_left => {
                self.shutdown = ShutdownPhase::Draining(now + DRAIN_TIMEOUT);
                self.tasks.is_empty()
            }
            ShutdownPhase::Terminating(at) => {
                if now >= at {
                    let _ = linux::signal_all(libc::SIGKILL);
                    self.shutdown = ShutdownPhase::Killing(now + KILL_TIMEOUT);
                }
                false
            }
            ShutdownPhase::Killing(at) => {
                if now >= at {
                    linux::kernel_log("processes survive SIGKILL; going down without them");
                    self.shutdown = ShutdownPhase::Draining(now);
                }
                false
            }
            ShutdownPhase::Draining(at) => self.tasks.is_empty() || now >= at,
        }
    }
}

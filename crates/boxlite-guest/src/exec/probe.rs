//! A probe of the box's health: a program whose supervisor, a child of the agent, gathers the beginning of its output and ends
//! it when its time is over.
//!
//! The supervisor adopts whatever loses its parent below it. So nothing that a probe has started can leave the tree that is
//! killed at the timeout, whatever sessions and groups it makes. Of a probe that ends by itself the rest lives on.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use boxlite_proto::{BootConfig, HealthProbe, ProbeOutcome, ProbeReport, ProcessExit, Stream};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::child;
use super::ends::{ChildEnds, on_pipes};
use super::init_system::ProcessPlace;
use crate::linux::{self, ForkSide, Signals};
use crate::port;

/// How long a supervisor may take for its own part: to join an init system, and to end what does not end.
const OVERTIME: Duration = Duration::from_secs(15);
/// How long it waits for what it has killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile for processes that have been started since.
const KILL_INTERVAL: Duration = Duration::from_millis(10);
/// Most bytes of a result.
const MAX_RESULT: usize = 64 * 1024;

/// A probe under way.
pub(crate) struct ProbeChild {
    supervisor: Pid,
    /// Where its result comes from, until it has all come.
    report: Option<OwnedFd>,
    result: Vec<u8>,
    reaped: bool,
    /// When it is given up.
    deadline: Instant,
}

impl ProbeChild {
    /// Starts one beside the init system `init`, if the box has one.
    pub(crate) fn start(probe: &HealthProbe, config: &BootConfig, init: Option<Pid>) -> io::Result<Self> {
        let (report, report_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&report, true)?;
        let (_, ends) = on_pipes(false, &[])?;
        let place = ProcessPlace::beside(init);
        match place.fork()? {
            ForkSide::Child => supervise(probe, &place, config, ends, File::from(report_writer)),
            ForkSide::Parent(supervisor) => Ok(Self {
                supervisor,
                report: Some(report),
                result: Vec::new(),
                reaped: false,
                deadline: Instant::now() + timeout(probe) + OVERTIME,
            }),
        }
    }

    /// Records that a child of the agent has ended, if it is this one.
    pub(crate) fn child_exited(&mut self, pid: Pid) {
        self.reaped |= pid == self.supervisor;
    }

    /// The descriptor to poll.
    pub(crate) fn interest(&self) -> Option<super::PollInterest<'_>> {
        self.report.as_ref().map(|report| (report.as_fd(), PollFlags::IN))
    }

    /// When to look again even if nothing is ready.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the result once it is known; kills a supervisor that is past its deadline.
    pub(crate) fn advance(&mut self, now: Instant) -> Option<ProbeReport> {
        self.read();
        if now >= self.deadline && !self.reaped {
            let _ = linux::signal(self.supervisor, libc::SIGKILL);
            // One that not even this ends is waited for, without a turn in the loop.
            self.deadline = now + OVERTIME;
        }
        if !self.reaped || self.report.is_some() {
            return None;
        }
        Some(
            serde_json::from_slice(&self.result)
                .unwrap_or_else(|_| failed("the probe was killed".to_owned())),
        )
    }

    fn read(&mut self) {
        let Some(report) = &self.report else { return };
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(report, &mut buffer) {
                Ok(n) if n > 0 && self.result.len() < MAX_RESULT => {
                    self.result.extend_from_slice(&buffer[..n]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => break,
            }
        }
        self.report = None;
    }
}

/// The result of a probe that could not be run; the agent knows whether the box is starting.
pub(crate) fn failed(why: String) -> ProbeReport {
    ProbeReport { outcome: ProbeOutcome::Failed, output: why, in_start_period: false, cpu_us: 0 }
}

fn timeout(probe: &HealthProbe) -> Duration {
    Duration::from_millis(probe.timeout_ms)
}

/// Runs the probe, writes its result to `report`, and never returns.
fn supervise(
    probe: &HealthProbe,
    place: &ProcessPlace,
    config: &BootConfig,
    ends: ChildEnds,
    mut report: File,
) -> ! {
    let outcome = place.settle(None).and_then(|()| {
        child::take_standard_descriptors(ends)?;
        linux::close_all_but_standard_and(report.as_fd());
        run(probe, config)
    });
    let result = outcome.unwrap_or_else(|error| failed(format!("the probe could not be run: {error}")));
    let written = serde_json::to_writer(&mut report, &result);
    linux::exit_child(i32::from(written.is_err()))
}

fn run(probe: &HealthProbe, config: &BootConfig) -> io::Result<ProbeReport> {
    linux::adopt_orphans()?;
    let signals = Signals::take()?;
    let deadline = Instant::now() + timeout(probe);
    let (mut own, mut ends) = on_pipes(false, &[Stream::Stdout])?;
    ends.stderr = ends.stdout.try_clone()?;
    let program = match linux::fork()? {
        ForkSide::Child => become_program(probe, config, ends),
        ForkSide::Parent(program) => program,
    };
    drop(ends);
    let output = own.outputs.pop().map(|(_, output)| output);
    let mut watch = ProbeWatch { program, signals, output, kept: Vec::new() };
    let outcome = watch.outcome_by(deadline)?;
    if outcome == ProbeOutcome::TimedOut {
        watch.end_all()?;
    }
    let cpu_us = linux::cpu_of_children().as_micros() as u64;
    let output = String::from_utf8_lossy(&watch.kept).into_owned();
    Ok(ProbeReport { outcome, output, in_start_period: false, cpu_us })
}

/// Becomes the probe's program, or says why not where its output goes.
fn become_program(probe: &HealthProbe, config: &BootConfig, ends: ChildEnds) -> ! {
    let words = ends.stdout.try_clone();
    let (failure, message) = child::become_program(&probe.spec, config, ends);
    if let Ok(words) = words {
        let _ = rustix::io::write(words, message.as_bytes());
    }
    linux::exit_child(failure.exit_code())
}

/// A supervisor's view of the probe.
struct ProbeWatch {
    program: Pid,
    /// Tells of children that have ended.
    signals: Signals,
    output: Option<OwnedFd>,
    /// The beginning of the output.
    kept: Vec<u8>,
}

impl ProbeWatch {
    /// Waits for the program's end, and no longer than until `deadline`.
    fn outcome_by(&mut self, deadline: Instant) -> io::Result<ProbeOutcome> {
        loop {
            self.signals.drain();
            let exit = self.reap()?.exit;
            self.read();
            if let Some(exit) = exit {
                return Ok(ProbeOutcome::Exited(exit));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(ProbeOutcome::TimedOut);
            }
            self.wait(left)?;
        }
    }

    fn wait(&self, limit: Duration) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output, PollFlags::IN)));
        port::wait(&mut fds, Some(limit)).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Reads what has been written, and keeps the beginning.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(n) => {
                    let room = HealthProbe::MAX_OUTPUT.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..n.min(room)]);
                    if room == 0 {
                        // A probe that writes without end must not keep its supervisor from looking at the clock.
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Reaps whatever has ended, the program's orphans included.
    fn reap(&self) -> io::Result<Reaped> {
        let mut reaped = Reaped { exit: None, none_left: false };
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => reaped.exit = exit_of(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(reaped),
                Err(Errno::CHILD) => return Ok(Reaped { none_left: true, ..reaped }),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills everything below this process, until nothing is left.
    fn end_all(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        // Its further output does not count, and must not make the waiting short.
        self.output = None;
        while Instant::now() < deadline {
            // A box that has hidden its /proc keeps at least what has left the session.
            let _ = rustix::process::kill_process_group(self.program, Signal::KILL);
            for pid in descendants(std::process::id(), &parents()) {
                if let Some(pid) = Pid::from_raw(pid as i32) {
                    let _ = linux::signal(pid, libc::SIGKILL);
                }
            }
            self.signals.drain();
            if self.reap()?.none_left {
                return Ok(());
            }
            self.wait(KILL_INTERVAL)?;
        }
        Ok(())
    }
}

/// The supervisor's children as far as they have ended.
struct Reaped {
    exit: Option<ProcessExit>,
    none_left: bool,
}

fn exit_of(status: WaitStatus) -> Option<ProcessExit> {
    status
        .exit_status()
        .map(ProcessExit::Code)
        .or_else(|| status.terminating_signal().map(ProcessExit::Signal))
}

/// Reads which process has which parent.
fn parents() -> HashMap<u32, u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (_, after) = stat.rsplit_once(')')?;
        after.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

/// The processes below `root`, by the parents of all. Processes start and end while those are read, so that they may form a circle.
fn descendants(root: u32, parents: &HashMap<u32, u32>) -> Vec<u32> {
    let is_below = |pid: u32| {
        let mut ancestor = pid;
        for _ in 0..parents.len() {
            match parents.get(&ancestor) {
                Some(&parent) if parent == root => return true,
                Some(&parent) => ancestor = parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|&pid| pid != root && is_below(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_is_found_and_nothing_else() {
        let parents =
            HashMap::from([(1, 0), (2, 1), (5, 2), (6, 5), (7, 6), (8, 1), (9, 10), (10, 9), (11, 99)]);
        let below = |root| {
            let mut found = descendants(root, &parents);
            found.sort_unstable();
            found
        };
        assert_eq!(below(5), [6, 7]);
        assert_eq!(below(7), [0; 0]);
        assert_eq!(below(1), [2, 5, 6, 7, 8]);
    }
}

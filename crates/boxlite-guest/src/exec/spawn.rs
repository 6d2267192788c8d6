//! Forks the child of an operation, connected to the agent by pipes or a terminal and by a report pipe.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use boxlite_proto::{BootConfig, Op, Stream};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::child;
use super::ends::{AgentEnds, on_pipes, on_terminal};
use super::init_system::ProcessPlace;
use crate::linux::ForkSide;

/// A child that has been started.
pub(super) struct SpawnedChild {
    pub(super) pid: Pid,
    pub(super) report: OwnedFd,
    pub(super) ends: AgentEnds,
}

/// Forks a child that carries out `op`, beside the init system `init` if there is one.
pub(super) fn spawn(op: Op, config: &BootConfig, init: Option<Pid>) -> io::Result<SpawnedChild> {
    let (report, report_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&report, true)?;
    let (ends, child_ends) = match &op {
        Op::Exec { spec, .. } => match spec.tty {
            Some(size) => on_terminal(size, spec.stdin)?,
            None => on_pipes(spec.stdin, &[Stream::Stdout, Stream::Stderr])?,
        },
        Op::CopyIn { .. } => on_pipes(true, &[])?,
        Op::CopyOut { .. } => on_pipes(false, &[Stream::Stdout])?,
        Op::Tree { .. } | Op::Dial { .. } | Op::Freeze { .. } => on_pipes(true, &[Stream::Stdout])?,
        _ => on_pipes(false, &[])?,
    };
    let place = ProcessPlace::of(&op, init);
    match place.fork()? {
        ForkSide::Child => child::carry_out(op, &place, config, child_ends, File::from(report_writer)),
        ForkSide::Parent(pid) => Ok(SpawnedChild { pid, report, ends }),
    }
}

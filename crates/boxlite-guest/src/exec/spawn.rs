//! A child with its pipes or terminal, and its way to report.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use boxlite_proto::{Op, Stream, WinSize};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::child;
use crate::linux::{self, Forked};

/// A child that was started.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) report: OwnedFd,
    pub(super) ends: AgentEnds,
}

/// The agent's ends of a child's streams; none of them blocks.
#[derive(Default)]
pub(super) struct AgentEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// The terminal's controlling side, to resize it by.
    pub(super) terminal: Option<OwnedFd>,
}

/// The child's ends, to become its standard descriptors.
pub(super) struct ChildEnds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) terminal: bool,
}

/// Forks a child that carries out `op`.
pub(super) fn spawn(op: Op, hostname: &str) -> io::Result<Spawned> {
    let (report, report_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&report, true)?;
    let (ends, child_ends) = match &op {
        Op::Exec { spec, .. } => match spec.tty {
            Some(size) => on_terminal(size, spec.stdin)?,
            None => on_pipes(spec.stdin, &[Stream::Stdout, Stream::Stderr])?,
        },
        Op::CopyIn { .. } => on_pipes(true, &[])?,
        Op::CopyOut { .. } => on_pipes(false, &[Stream::Stdout])?,
        _ => on_pipes(false, &[])?,
    };
    match linux::fork()? {
        Forked::Child => child::carry_out(op, hostname, child_ends, File::from(report_writer)),
        Forked::Parent(pid) => Ok(Spawned { pid, report, ends }),
    }
}

pub(super) fn winsize(size: WinSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn on_pipes(stdin: bool, outputs: &[Stream]) -> io::Result<(AgentEnds, ChildEnds)> {
    let mut ends = AgentEnds::default();
    let child_stdin = if stdin {
        let (child, own) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        ends.stdin = Some(own);
        child
    } else {
        null()?
    };
    let mut output = |stream: Stream| -> io::Result<OwnedFd> {
        if !outputs.contains(&stream) {
            return null();
        }
        let (own, child) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        ends.outputs.push((stream, own));
        Ok(child)
    };
    let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
    Ok((ends, ChildEnds { stdin: child_stdin, stdout, stderr, terminal: false }))
}

fn on_terminal(size: WinSize, stdin: bool) -> io::Result<(AgentEnds, ChildEnds)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // The multiplexer of our own devpts; /dev/ptmx may be anything the image made of it.
    let own = rustix::fs::open("/dev/pts/ptmx", flags, rustix::fs::Mode::empty())?;
    rustix::pty::unlockpt(&own)?;
    rustix::termios::tcsetwinsize(&own, winsize(size))?;
    let child =
        rustix::pty::ioctl_tiocgptpeer(&own, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let ends = AgentEnds {
        stdin: stdin.then(|| own.try_clone()).transpose()?,
        outputs: vec![(Stream::Stdout, own.try_clone()?)],
        terminal: Some(own),
    };
    let child_ends =
        ChildEnds { stdin: child.try_clone()?, stdout: child.try_clone()?, stderr: child, terminal: true };
    Ok((ends, child_ends))
}

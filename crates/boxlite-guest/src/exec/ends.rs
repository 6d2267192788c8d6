//! The two ends of a child's streams: pipes, or a terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use boxlite_proto::{Stream, WinSize};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// The agent's ends of a child's streams, all non-blocking.
#[derive(Default)]
pub(super) struct AgentEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// The controlling side of the terminal, which resizes it.
    pub(super) terminal: Option<OwnedFd>,
}

/// The child's ends, which become its standard descriptors.
pub(super) struct ChildEnds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) terminal: bool,
}

/// Converts a size to the kernel's form.
pub(super) fn winsize(size: WinSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Connects a child by pipes: its input if `stdin`, and the `outputs`. The rest is `/dev/null`.
pub(super) fn on_pipes(stdin: bool, outputs: &[Stream]) -> io::Result<(AgentEnds, ChildEnds)> {
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

/// Connects a child by a new terminal.
pub(super) fn on_terminal(size: WinSize, stdin: bool) -> io::Result<(AgentEnds, ChildEnds)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // The multiplexer of our own devpts, because the image decides what /dev/ptmx is.
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

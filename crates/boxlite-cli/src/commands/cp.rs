//! `cp`.

use std::io;
use std::os::fd::OwnedFd;

use boxlite::settings::Bytes;
use boxlite::{CopyOptions, Runtime};
use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::pause::PauseNotices;
use crate::copy::{CopySource, Endpoint, SkippedPaths, pack, unpack};
use crate::report::{CommandFailure, Exit, Topic, note, visible};
use crate::terminal::Wiring;

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Keep owner and mode as they are
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link SOURCE points to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Fail while the box is paused, instead of waiting until it resumes
    #[arg(long)]
    no_wait: bool,
    /// A path, BOX:PATH, or `-` for a tar stream on standard input
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// A path, BOX:PATH, or `-` for a tar stream on standard output
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
}

impl CopyArgs {
    fn options(&self) -> CopyOptions {
        CopyOptions { archive: self.archive, follow_link: self.follow_link, unless_paused: self.no_wait }
    }

    /// Appended to the command's help.
    pub(super) const RULES: &'static str = "\
A destination that is a directory receives the source under its own name; one that does not exist becomes the copy, \
unless it ends in `/`. A destination that is a link to a directory is followed only if it ends in `/`, \
because an earlier copy may have brought the link from a box. A source directory that ends in `/.` stands for its contents. A local path with a colon \
is written as ./PATH. No link below the copied name is followed. The box need not run: a guest is then brought up for its files alone, and the box stays as it is.";
}

pub(super) async fn cp(runtime: &Runtime, args: CopyArgs) -> Result<Exit, CommandFailure> {
    match (Endpoint::parse(&args.source), Endpoint::parse(&args.destination)) {
        (Endpoint::Host(path), Endpoint::Box { id, path: to }) => {
            let bytes =
                copy_in(runtime, CopySource::find(&path, args.follow_link)?, &id, &to, args.options())
                    .await?;
            report_copied(&args, bytes);
        }
        (Endpoint::Box { id, path }, Endpoint::Host(to)) => {
            let bytes = copy_out(runtime, &id, path, to, args.options()).await?;
            report_copied(&args, bytes);
        }
        (Endpoint::Stream, Endpoint::Box { id, path }) => {
            let copied = runtime.copy_in(&id, &path, args.options(), standard_input()?);
            PauseNotices::of(runtime, &id).before(copied).await.map_err(|error| failed(&error))?;
        }
        (Endpoint::Box { id, path }, Endpoint::Stream) => {
            let mut notices = PauseNotices::of(runtime, &id);
            let tar = notices.before(runtime.copy_out(&id, &path, args.options()));
            let tar = tar.await.map_err(|error| failed(&error))?;
            notices.during(pass_on(tar, tokio::io::stdout()), Wiring::PLAIN).await?;
        }
        (Endpoint::Box { .. }, Endpoint::Box { .. }) => {
            return Err(CommandFailure::local("cp copies between a box and the host, not between two boxes")
                .hint("boxlite cp BOX1:PATH - | boxlite cp - BOX2:DIR"));
        }
        _ => {
            return Err(CommandFailure::local("neither the source nor the destination is in a box")
                .hint("write BOX:PATH for the one that is"));
        }
    }
    Ok(Exit::OK)
}

fn failed(error: &boxlite::Error) -> CommandFailure {
    CommandFailure::of(error, Topic::Copy)
}

fn receiving_failed(error: &io::Error) -> CommandFailure {
    CommandFailure::local(format!("receiving the copy failed: {error:#}"))
}

/// Copies a box's tar stream to standard output, telling failures of the two apart.
async fn pass_on(
    mut tar: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), CommandFailure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = tar.read(&mut buffer).await.map_err(|error| receiving_failed(&error))?;
        if count == 0 {
            return to.flush().await.map_err(|error| CommandFailure::output(&error));
        }
        to.write_all(&buffer[..count]).await.map_err(|error| CommandFailure::output(&error))?;
    }
}

fn report_copied(args: &CopyArgs, bytes: u64) {
    if !args.quiet && rustix::termios::isatty(rustix::stdio::stderr()) {
        note(&format!("copied {} to {}", Bytes(bytes), args.destination));
    }
}

fn warn_of_skipped(skipped: &SkippedPaths) {
    for path in skipped.named() {
        let path = visible(&path.display().to_string());
        note(&format!("boxlite: warning: {path} was skipped: it is not a file, directory or link"));
    }
    if skipped.unnamed() > 0 {
        note(&format!("boxlite: warning: {} more were skipped", skipped.unnamed()));
    }
}

async fn copy_in(
    runtime: &Runtime,
    source: CopySource,
    id: &str,
    to: &str,
    options: CopyOptions,
) -> Result<u64, CommandFailure> {
    let (read, write) = make_pipe()?;
    let read = pipe::Receiver::from_owned_fd(read).map_err(|error| pipe_failed(&error))?;
    let packing = tokio::task::spawn_blocking(move || pack(&source, std::fs::File::from(write)));
    let copying = runtime.copy_in(id, to, options, Box::new(read));
    let copied = PauseNotices::of(runtime, id).before(copying).await;
    let packed = packing.await.map_err(|error| CommandFailure::local(format!("packing failed: {error}")))?;
    match (packed, copied) {
        (Ok(packed), Ok(())) => {
            warn_of_skipped(&packed.skipped);
            Ok(packed.bytes)
        }
        // A broken pipe only says that the other end failed.
        (Err(error), copied) if error.kind() != io::ErrorKind::BrokenPipe || copied.is_ok() => {
            Err(CommandFailure::local(format!("reading what to copy failed: {error:#}")))
        }
        (_, Err(error)) => Err(failed(&error)),
        (Err(error), Ok(())) => Err(CommandFailure::local(format!("reading what to copy failed: {error:#}"))),
    }
}

async fn copy_out(
    runtime: &Runtime,
    id: &str,
    path: String,
    to: String,
    options: CopyOptions,
) -> Result<u64, CommandFailure> {
    let keep = options.archive;
    if keep && !rustix::process::geteuid().is_root() {
        note("boxlite: warning: only root can keep owners; the copy belongs to you");
    }
    let mut notices = PauseNotices::of(runtime, id);
    let tar = notices.before(runtime.copy_out(id, &path, options)).await;
    let mut tar = tar.map_err(|error| failed(&error))?;
    let (read, write) = make_pipe()?;
    let mut write = pipe::Sender::from_owned_fd(write).map_err(|error| pipe_failed(&error))?;
    let unpacking = tokio::task::spawn_blocking(move || unpack(std::fs::File::from(read), &path, &to, keep));
    let sent = notices.during(tokio::io::copy(&mut tar, &mut write), Wiring::PLAIN).await;
    drop(write);
    let unpacked =
        unpacking.await.map_err(|error| CommandFailure::local(format!("unpacking failed: {error}")))?;
    if let Err(error) = &sent
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(receiving_failed(error));
    }
    let unpacked = unpacked?;
    warn_of_skipped(&unpacked.skipped);
    Ok(unpacked.bytes)
}

/// Reads standard input on a thread of its own, because nothing may wait for a read that never ends.
pub(super) fn standard_input() -> Result<Box<dyn AsyncRead + Send + Unpin>, CommandFailure> {
    let (read, write) = make_pipe()?;
    std::thread::spawn(move || {
        let mut write = std::fs::File::from(write);
        if let Err(error) = io::copy(&mut io::stdin().lock(), &mut write)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            note(&format!("boxlite: warning: reading standard input failed: {error}"));
        }
    });
    Ok(Box::new(pipe::Receiver::from_owned_fd(read).map_err(|error| pipe_failed(&error))?))
}

/// Makes a pipe between asynchronous and blocking code.
fn make_pipe() -> Result<(OwnedFd, OwnedFd), CommandFailure> {
    let (read, write) = io::pipe().map_err(|error| pipe_failed(&error))?;
    Ok((read.into(), write.into()))
}

fn pipe_failed(error: &io::Error) -> CommandFailure {
    CommandFailure::local(format!("making a pipe failed: {error}"))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// A box that dies.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    #[tokio::test]
    async fn a_box_that_dies_is_not_taken_for_a_reader_that_left() {
        let failure = pass_on(Broken, tokio::io::sink()).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::FAILED);
        assert!(failure.to_string().starts_with("receiving the copy failed"), "{failure}");
        let (ours, theirs) = tokio::io::duplex(1);
        drop(theirs);
        assert_eq!(pass_on(&b"tar"[..], ours).await.unwrap_err().exit(), Exit::BROKEN_PIPE);
        let mut copied = Vec::new();
        pass_on(&b"tar"[..], &mut copied).await.unwrap();
        assert_eq!(copied, b"tar");
    }
}

//! `cp`.

use std::io;
use std::os::fd::OwnedFd;

use boxlite::Runtime;
use boxlite::settings::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::args::CopyArgs;
use crate::copy::{Endpoint, Source, pack, unpack};
use crate::report::{Exit, Failure, Topic, note};

pub(super) async fn cp(runtime: &Runtime, args: CopyArgs) -> Result<Exit, Failure> {
    match (Endpoint::parse(&args.source), Endpoint::parse(&args.destination)) {
        (Endpoint::Host(path), Endpoint::Box { id, path: to }) => {
            let bytes = copy_in(runtime, Source::find(&path)?, &id, &to).await?;
            say(&args, bytes);
        }
        (Endpoint::Box { id, path }, Endpoint::Host(to)) => {
            let bytes = copy_out(runtime, &id, path, to).await?;
            say(&args, bytes);
        }
        (Endpoint::Stream, Endpoint::Box { id, path }) => {
            runtime.copy_in(&id, &path, standard_input()?).await.map_err(|error| failed(&error))?;
        }
        (Endpoint::Box { id, path }, Endpoint::Stream) => {
            let tar = runtime.copy_out(&id, &path).await.map_err(|error| failed(&error))?;
            pass_on(tar, tokio::io::stdout()).await?;
        }
        (Endpoint::Box { .. }, Endpoint::Box { .. }) => {
            return Err(Failure::local("cp copies between a box and the host, not between two boxes")
                .hint("boxlite cp BOX1:PATH - | boxlite cp - BOX2:DIR"));
        }
        _ => {
            return Err(Failure::local("neither the source nor the destination is in a box")
                .hint("write BOX:PATH for the one that is"));
        }
    }
    Ok(Exit::OK)
}

fn failed(error: &boxlite::Error) -> Failure {
    Failure::of(error, Topic::Copy)
}

fn receiving_failed(error: &io::Error) -> Failure {
    Failure::local(format!("receiving the copy failed: {error}"))
}

/// Passes a box's tar stream on to standard output, telling the failures of the one from those of the other.
async fn pass_on(mut tar: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = tar.read(&mut buffer).await.map_err(|error| receiving_failed(&error))?;
        if count == 0 {
            return to.flush().await.map_err(|error| Failure::output(&error));
        }
        to.write_all(&buffer[..count]).await.map_err(|error| Failure::output(&error))?;
    }
}

fn say(args: &CopyArgs, bytes: u64) {
    if !args.quiet && rustix::termios::isatty(rustix::stdio::stderr()) {
        note(&format!("copied {} to {}", Bytes(bytes), args.destination));
    }
}

fn warn_of_skipped(skipped: &[std::path::PathBuf]) {
    for path in skipped {
        note(&format!("boxlite: warning: {} was left out: it is no file, directory or link", path.display()));
    }
}

async fn copy_in(runtime: &Runtime, source: Source, id: &str, to: &str) -> Result<u64, Failure> {
    let (read, write) = plumbing()?;
    let read = pipe::Receiver::from_owned_fd(read).map_err(|error| plumbing_failed(&error))?;
    let packing = tokio::task::spawn_blocking(move || pack(&source, std::fs::File::from(write)));
    let copied = runtime.copy_in(id, to, Box::new(read)).await;
    let packed = packing.await.map_err(|error| Failure::local(format!("packing failed: {error}")))?;
    match (packed, copied) {
        (Ok(packed), Ok(())) => {
            warn_of_skipped(&packed.skipped);
            Ok(packed.bytes)
        }
        // A pipe that broke only says that the other end had its own trouble.
        (Err(error), copied) if error.kind() != io::ErrorKind::BrokenPipe || copied.is_ok() => {
            Err(Failure::local(format!("reading what to copy failed: {error}")))
        }
        (_, Err(error)) => Err(failed(&error)),
        (Err(error), Ok(())) => Err(Failure::local(format!("reading what to copy failed: {error}"))),
    }
}

async fn copy_out(runtime: &Runtime, id: &str, path: String, to: String) -> Result<u64, Failure> {
    let mut tar = runtime.copy_out(id, &path).await.map_err(|error| failed(&error))?;
    let (read, write) = plumbing()?;
    let mut write = pipe::Sender::from_owned_fd(write).map_err(|error| plumbing_failed(&error))?;
    let unpacking = tokio::task::spawn_blocking(move || unpack(std::fs::File::from(read), &path, &to));
    let sent = tokio::io::copy(&mut tar, &mut write).await;
    drop(write);
    let unpacked = unpacking.await.map_err(|error| Failure::local(format!("unpacking failed: {error}")))?;
    if let Err(error) = &sent
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(receiving_failed(error));
    }
    let unpacked = unpacked?;
    warn_of_skipped(&unpacked.skipped);
    Ok(unpacked.bytes)
}

/// Standard input, read by a thread that does not outlive its use: nothing waits for a read that may never end.
fn standard_input() -> Result<Box<dyn AsyncRead + Send + Unpin>, Failure> {
    let (read, write) = plumbing()?;
    std::thread::spawn(move || {
        let mut write = std::fs::File::from(write);
        if let Err(error) = io::copy(&mut io::stdin().lock(), &mut write)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            note(&format!("boxlite: warning: reading standard input failed: {error}"));
        }
    });
    Ok(Box::new(pipe::Receiver::from_owned_fd(read).map_err(|error| plumbing_failed(&error))?))
}

/// A pipe between asynchronous and blocking code.
fn plumbing() -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = io::pipe().map_err(|error| plumbing_failed(&error))?;
    Ok((read.into(), write.into()))
}

fn plumbing_failed(error: &io::Error) -> Failure {
    Failure::local(format!("making a pipe failed: {error}"))
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

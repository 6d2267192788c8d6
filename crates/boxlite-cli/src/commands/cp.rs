//! `cp`.

use std::io;
use std::os::fd::OwnedFd;

use boxlite::Runtime;
use boxlite::settings::Bytes;
use tokio::io::AsyncRead;
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
            let mut tar = runtime.copy_out(&id, &path).await.map_err(|error| failed(&error))?;
            tokio::io::copy(&mut tar, &mut tokio::io::stdout())
                .await
                .map_err(|error| Failure::output(&error))?;
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
    Failure::of(error, Topic::RunningBox)
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
        return Err(Failure::local(format!("receiving the copy failed: {error}")));
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

//! Archives as files of the user's.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use boxlite::TarStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::space::{CHECK_INTERVAL, DestinationSpace};
use crate::report::CommandFailure;

/// Writes an archive to `path`, or to standard output, and returns its bytes.
///
/// A file appears under its name only once it is whole, for its owner alone, and is given up before it would fill its filesystem. `archive` is
/// asked for only when there is a place to write it to.
pub(crate) async fn write_archive(
    archive: impl Future<Output = Result<TarStream, CommandFailure>>,
    path: Option<&Path>,
) -> Result<u64, CommandFailure> {
    match path.filter(|path| path.as_os_str() != "-") {
        None if rustix::termios::isatty(rustix::stdio::stdout()) => {
            Err(CommandFailure::local("standard output is a terminal, and an archive is not for reading")
                .hint("name a file with -o, or redirect the output"))
        }
        None => pass_on(archive.await?, tokio::io::stdout(), None).await,
        // An existing pipe or device is written to, and not replaced.
        Some(path) if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) => {
            let file = tokio::fs::OpenOptions::new().write(true).open(path).await;
            let file = file.map_err(|error| failed(path, &error))?;
            pass_on(archive.await?, file, None).await
        }
        Some(path) => write_file(archive, path).await,
    }
}

async fn write_file(
    archive: impl Future<Output = Result<TarStream, CommandFailure>>,
    path: &Path,
) -> Result<u64, CommandFailure> {
    // A link stays one.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (Some(name), false) = (path.file_name(), path.is_dir()) else {
        return Err(CommandFailure::local(format!("{} is a directory", path.display())));
    };
    let opened = std::fs::File::open(directory).map_err(|error| failed(directory, &error))?;
    let partial =
        Partial::create(directory, &name.to_string_lossy()).map_err(|error| failed(path, &error))?;
    let file = partial.file.try_clone().map_err(|error| failed(path, &error))?;
    let space = (DestinationSpace::new(), OwnedFd::from(opened));
    let bytes = pass_on(archive.await?, tokio::fs::File::from_std(file), Some(&space)).await?;
    partial.publish(path).map_err(|error| failed(path, &error))?;
    Ok(bytes)
}

async fn pass_on(
    mut archive: TarStream,
    mut to: impl AsyncWrite + Unpin,
    space: Option<&(DestinationSpace, OwnedFd)>,
) -> Result<u64, CommandFailure> {
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut checked) = (0, 0);
    loop {
        let count = archive
            .read(&mut buffer)
            .await
            .map_err(|error| CommandFailure::local(format!("the archive broke off: {error:#}")))?;
        if let Some((space, directory)) = space
            && (bytes == 0 || bytes >= checked + CHECK_INTERVAL)
        {
            space
                .check(directory, CHECK_INTERVAL)
                .map_err(|error| CommandFailure::local(error.to_string()))?;
            checked = bytes;
        }
        if count == 0 {
            to.flush().await.map_err(|error| CommandFailure::output(&error))?;
            return Ok(bytes);
        }
        to.write_all(&buffer[..count]).await.map_err(|error| CommandFailure::output(&error))?;
        bytes += count as u64;
    }
}

/// A file that is being written; dropping it removes it.
struct Partial {
    file: std::fs::File,
    path: PathBuf,
}

#[allow(clippy::disallowed_methods, reason = "a file of the user's own, outside of the home")]
impl Partial {
    fn create(directory: &Path, name: &str) -> io::Result<Self> {
        for attempt in 0..100 {
            let path = directory.join(format!(".{name}.{}.{attempt}.part", std::process::id()));
            match std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return Ok(Self { file: created?, path }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn publish(self, destination: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, destination)
    }
}

#[allow(clippy::disallowed_methods, reason = "a file of the user's own, outside of the home")]
impl Drop for Partial {
    fn drop(&mut self) {
        // Once published, there is nothing at its path.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(path: &Path, error: &io::Error) -> CommandFailure {
    CommandFailure::local(format!("writing {} failed: {error}", path.display()))
}

//! One virtiofsd, which is boxlite's own: its command line, and its process.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ExitStatus};

use boxlite_types::{Error, ErrorKind, Result, Volume};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Sandbox, VolumeFloors};
use crate::exit::exit_of;

/// Bytes of a virtiofsd's last words that are kept.
const LAST_WORDS: usize = 2048;

/// Every id that the guest may use.
const ALL_IDS: u32 = u32::MAX;

/// A user and a group of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The descriptors that a virtiofsd inherits, by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    /// The socket that QEMU has connected to.
    pub(super) listener: RawFd,
    /// The directory or file that was checked.
    pub(super) source: RawFd,
    /// The ledger that keeps how much of its size is used, for a volume with a size.
    pub(super) ledger: Option<RawFd>,
}

/// virtiofsd's arguments for `volume`, which belongs to `owner` on the host, run by `user`.
pub(super) fn arguments(
    volume: &Volume,
    floors: VolumeFloors,
    descriptors: Descriptors,
    sandbox: Sandbox,
    user: Identity,
    owner: Identity,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--fd".into(), descriptors.listener.to_string().into()];
    if volume.file {
        arguments.extend(["--shared-file".into(), volume.source.clone().into()]);
        arguments.push(format!("--file-fd={}", descriptors.source).into());
    } else {
        arguments.extend(["--shared-dir".into(), volume.source.clone().into()]);
    }
    let sandbox = match sandbox {
        Sandbox::Namespace => "namespace",
        Sandbox::Chroot => "chroot",
    };
    arguments.extend(["--sandbox".into(), sandbox.into()]);
    arguments.push(format!("--hard-floor={}", floors.bytes).into());
    arguments.push(format!("--inode-floor={}", floors.inodes).into());
    if let (Some(size), Some(ledger)) = (volume.size, descriptors.ledger) {
        arguments.push(format!("--size={size}").into());
        arguments.push(format!("--ledger={ledger}").into());
    }
    if user.uid != 0 {
        let Identity { uid, gid } = user;
        arguments.push(format!("--uid-map=:0:{uid}:1:").into());
        arguments.push(format!("--gid-map=:0:{gid}:1:").into());
        arguments.push(format!("--translate-uid=squash-guest:0:0:{ALL_IDS}").into());
        arguments.push(format!("--translate-gid=squash-guest:0:0:{ALL_IDS}").into());
    }
    if volume.map_ids && user.uid == 0 {
        for (kind, id) in [("uid", owner.uid), ("gid", owner.gid)] {
            arguments.push(format!("--translate-{kind}=squash-guest:0:{id}:{ALL_IDS}").into());
            arguments.push(format!("--translate-{kind}=squash-host:0:0:{ALL_IDS}").into());
        }
    }
    if volume.read_only {
        arguments.push("--readonly".into());
    }
    arguments
}

/// A running virtiofsd; dropping it kills and reaps it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    stderr: Option<ChildStderr>,
    volume: Volume,
}

impl Daemon {
    pub(super) fn new(mut child: Child, volume: Volume) -> Self {
        let stderr = child.stderr.take();
        Self { child, stderr, volume }
    }

    /// The process id, which is also the process group's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended; [`Daemon::watch`] says how.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends, which it does by itself when QEMU closes its connection; needs a tokio runtime.
    ///
    /// Any other end is an error with its last words; dropping the future kills it.
    pub async fn watch(mut self) -> Result<()> {
        let status = self.wait().await;
        let source = &self.volume.source;
        match status {
            Ok((status, _)) if status.success() => Ok(()),
            Ok((status, words)) => {
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exited with status {code}"),
                    (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
                };
                let words = if words.is_empty() { String::new() } else { format!(": {words}") };
                let message = format!("{self} {how}{words}");
                Err(Error::new(ErrorKind::Unavailable, message).at(source))
            }
            Err(error) => Err(Error::io("watching virtiofsd of the volume", source, error)),
        }
    }

    async fn wait(&mut self) -> io::Result<(ExitStatus, String)> {
        let mut words = Vec::new();
        if let Some(stderr) = self.stderr.take() {
            let mut stderr = pipe::Receiver::from_owned_fd(stderr.into())?;
            let mut buffer = [0; 1024];
            loop {
                let length = stderr.read(&mut buffer).await?;
                if length == 0 {
                    break;
                }
                words.extend_from_slice(&buffer[..length]);
                words.drain(..words.len().saturating_sub(LAST_WORDS));
            }
        }
        // Both of its processes have closed stderr: they are exiting or have exited.
        exit_of(&mut self.child)?.await?;
        Ok((self.child.wait()?, one_line(&words)))
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "virtiofsd of the volume {}", self.volume.source.display())
    }
}

fn one_line(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not yet reaped, so its number is still its own; the group includes the process inside its namespaces.
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = Pid::from_raw(self.child.id() as i32) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether `program` is one that can be run.
pub(super) fn require(program: &Path) -> Result<()> {
    let executable = rustix::fs::access(program, rustix::fs::Access::EXEC_OK);
    executable.map_err(|errno| {
        let message = format!(
            "volumes need boxlite-virtiofsd, which is not at {}; put it beside boxlite",
            program.display()
        );
        Error::not_found(message).at(program).because(io::Error::from(errno))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: &str) -> Volume {
        let (source, target) = (source.into(), "/x".into());
        Volume { source, target, read_only: false, map_ids: false, file: false, size: None }
    }

    fn line(read_only: bool, uid: u32, sandbox: Sandbox) -> String {
        line_of(&Volume { read_only, ..volume("/srv/a b") }, uid, sandbox)
    }

    fn line_of(volume: &Volume, uid: u32, sandbox: Sandbox) -> String {
        let (user, owner) = (Identity { uid, gid: uid + 1 }, Identity { uid: 7, gid: 8 });
        let (floors, ledger) = (VolumeFloors { bytes: 1, inodes: 2 }, volume.size.map(|_| 9));
        let descriptors = Descriptors { listener: 7, source: 8, ledger };
        let arguments = arguments(volume, floors, descriptors, sandbox, user, owner);
        arguments.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn read_only_is_the_hosts_business() {
        assert!(line(true, 0, Sandbox::Namespace).contains("|--readonly"));
        assert!(!line(false, 0, Sandbox::Namespace).contains("readonly"));
    }

    #[test]
    fn root_passes_ids_on() {
        let line = line(false, 0, Sandbox::Chroot);
        assert!(line.starts_with("--fd|7|--shared-dir|/srv/a b|--sandbox|chroot|"), "{line}");
        assert!(line.ends_with("--hard-floor=1|--inode-floor=2") && !line.contains("map="), "{line}");
    }

    #[test]
    fn a_size_comes_with_its_ledger_and_a_file_with_its_descriptor() {
        let line = line_of(&Volume { size: Some(5), file: true, ..volume("/f") }, 0, Sandbox::Namespace);
        assert!(line.starts_with("--fd|7|--shared-file|/f|--file-fd=8|"), "{line}");
        assert!(line.ends_with("|--size=5|--ledger=9"), "{line}");
    }

    #[test]
    fn mapped_ids_are_those_of_the_directory_for_root_alone() {
        let volume = Volume { map_ids: true, ..volume("/srv") };
        let root = line_of(&volume, 0, Sandbox::Namespace);
        for part in
            ["uid=squash-guest:0:7:", "uid=squash-host:0:0:", "gid=squash-guest:0:8:", "gid=squash-host:0:0:"]
        {
            assert!(root.contains(&format!("|--translate-{part}4294967295")), "{root}");
        }
        assert!(!line_of(&volume, 1000, Sandbox::Namespace).contains("squash-host"));
    }

    #[test]
    fn anybody_else_owns_what_the_guest_makes() {
        let line = line(false, 1000, Sandbox::Namespace);
        assert!(line.contains("--uid-map=:0:1000:1:") && line.contains("--gid-map=:0:1001:1:"), "{line}");
        assert!(line.contains("--translate-uid=squash-guest:0:0:4294967295"), "{line}");
    }
}

//! The user-mode stack: slirp in a process of its own, which has the box's sockets and nothing else of it. The shim puts
//! it into a jail.
//!
//! Where the box's QEMU is linked with the host's libslirp, as distributions' QEMUs are since 7.2, the stack is that library in
//! the shim's own program ([`super::slirp`]). Elsewhere, and without a jail, it is a QEMU without a machine, which every host
//! with boxes has, but takes 24 ms of processor time and 8.5 MiB of memory that it shares with nobody. passt takes 16 ms and
//! 19.6 MiB, is one more program to install, and Debian 12 has it of March 2023, before most of its fixes.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus};
use std::time::Duration;

use boxlite_types::{Doing, Error, ErrorKind, PortForward, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::record::MAX_RECORD;
use super::slirp;
use super::{GATEWAY, GUEST, MacAddr, RESOLVER, SUBNET};
use crate::exit::{ChildEnder, exit_of};

/// Bytes of its last words that are kept.
const MAX_LAST_WORDS: usize = 1024;

/// The first port that does not take a privilege to bind.
const FIRST_FREE_PORT: u16 = 1024;

/// How long it may take to come up; on an idle host that is some 30 ms.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it may take to exit once it has closed its stderr.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The program of a user-mode stack and what it is started with.
#[derive(Debug)]
pub struct StackCommand {
    /// The program that it is.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// The only descriptor that it inherits, under its number, besides stdio.
    pub wire: RawFd,
    /// Whether it binds a port that takes a privilege.
    pub low_ports: bool,
    /// The files that it is loaded from, besides those of the box's QEMU.
    pub code: Vec<PathBuf>,
}

impl StackCommand {
    /// The stack behind the socket `wire`, publishing `ports`, whose host ports are chosen: the QEMU at `qemu`, or `own`, the
    /// program at hand, where the files `code` of that QEMU have libslirp among them.
    pub fn new(
        qemu: &Path,
        code: &[PathBuf],
        own: Option<ShimProgram>,
        ports: &[PortForward],
        wire: RawFd,
    ) -> Self {
        let low_ports = ports.iter().any(|port| port.host < FIRST_FREE_PORT);
        if let (Some(library), Some(ShimProgram { program, code })) = (slirp::library_of(code), own) {
            let arguments = slirp::arguments(library, ports, wire);
            return Self { program, arguments, wire, low_ports, code };
        }
        let arguments = arguments(ports, wire).into_iter().map(OsString::from).collect();
        Self { program: qemu.to_owned(), arguments, wire, low_ports, code: Vec::new() }
    }

    /// The same program, which only loads what it needs and ends.
    #[must_use]
    pub fn trial(mut self) -> Self {
        let keep = if self.code.is_empty() { 0 } else { 2 };
        self.arguments.truncate(keep);
        self.arguments.push("--version".into());
        self
    }
}

/// A program that calls [`slirp::serve_stack`] first of all.
#[derive(Debug, Clone)]
pub struct ShimProgram {
    program: PathBuf,
    /// All files that it is loaded from, itself included.
    code: Vec<PathBuf>,
}

impl ShimProgram {
    /// The program at `program`, which is loaded from the libraries that this process is loaded from; `None` where it is not there
    /// any more.
    pub fn of_shim(program: &Path) -> Option<Self> {
        let mut code = boxlite_jail::own_libraries();
        code.push(program.to_owned());
        program.is_file().then(|| Self { program: program.to_owned(), code })
    }
}

/// A running user-mode stack; dropping it kills and reaps it.
#[derive(Debug)]
pub struct StackProcess {
    child: Child,
    ender: ChildEnder,
    words: Option<ChildStderr>,
    program: PathBuf,
}

impl StackProcess {
    /// The stack of `program` that `ender` kills; `child` is the stack itself or ends as it ended, and its stderr is the
    /// stack's.
    ///
    /// That a port cannot be bound shows when the process ends instead of [becoming ready](Readiness::wait).
    pub(crate) fn new(program: PathBuf, mut child: Child, ender: ChildEnder) -> Self {
        let words = child.stderr.take();
        Self { child, ender, words, program }
    }

    /// Returns the ender of a stack while it is [watched](Self::watch).
    pub(crate) fn ender(&self) -> io::Result<ChildEnder> {
        self.ender.try_clone()
    }

    /// Returns the sign that it serves; `wire` is the other end of its socket, which carries nothing else meanwhile.
    pub(super) fn readiness(&self, wire: &StdStream, mac: MacAddr) -> Result<Readiness> {
        let doing = "preparing to wait for the user-mode network";
        let words = match &self.words {
            Some(words) => Some(words.as_fd().try_clone_to_owned().doing(doing, &self.program)?),
            None => None,
        };
        let wire = wire.try_clone().doing(doing, &self.program)?;
        Ok(Readiness { wire, words, mac })
    }

    /// Waits until it ends, which it does not do by itself, and returns why; needs a tokio runtime.
    ///
    /// Dropping the future kills it.
    pub async fn watch(mut self) -> Error {
        let words = self.words.take().map(OwnedFd::from);
        let words = last_words(words).await;
        let status = self.final_status().await;
        let ended = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let message = format!("the user-mode network of the box ended ({ended}){words}");
        Error::new(ErrorKind::Unavailable, message).at(&self.program)
    }

    /// The status of a process that has no stderr any more: it is about to exit, or only gave it up and is killed.
    async fn final_status(&mut self) -> io::Result<ExitStatus> {
        let exit = tokio::time::timeout(EXIT_TIMEOUT, exit_of(&mut self.child)?);
        if !matches!(exit.await, Ok(Ok(()))) {
            self.ender.end()?;
        }
        self.child.wait()
    }
}

impl Drop for StackProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.ender.end();
            let _ = self.child.wait();
        }
    }
}

/// Tells when a [`StackProcess`] serves: its ports are bound then.
#[derive(Debug)]
pub(super) struct Readiness {
    wire: StdStream,
    words: Option<OwnedFd>,
    mac: MacAddr,
}

impl Readiness {
    /// Returns once it serves; needs a tokio runtime.
    ///
    /// # Errors
    /// `Unavailable` with its last words when it ends instead, or does not answer for a minute.
    pub(super) async fn wait(self) -> Result<()> {
        let answered = tokio::time::timeout(READY_TIMEOUT, answer(self.wire, self.mac)).await;
        let why = match answered {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => last_words(self.words).await,
            Err(_) => ": it does not answer".to_owned(),
        };
        let message = format!("the user-mode network of the box did not come up{why}");
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

/// Asks the stack for its address as the guest would, and returns once it has told.
///
/// It does so only when all of its parts are set up. Until then nothing else is asked of it, and what it sends by itself
/// is for clients of published ports, who try again.
async fn answer(wire: StdStream, mac: MacAddr) -> io::Result<()> {
    let mut wire = UnixStream::from_std(wire)?;
    let question = who_has_the_gateway(mac);
    wire.write_all(&(question.len() as u32).to_be_bytes()).await?;
    wire.write_all(&question).await?;
    let mut frame = Vec::new();
    loop {
        let length = wire.read_u32().await? as usize;
        if length > MAX_RECORD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        frame.resize(length, 0);
        wire.read_exact(&mut frame).await?;
        let is_arp_reply = frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 2]);
        if is_arp_reply && frame.get(28..32) == Some(&GATEWAY.octets()) {
            return Ok(());
        }
    }
}

/// RFC 826.
fn who_has_the_gateway(mac: MacAddr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.octets());
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

/// The end of what comes from `words` until it is closed, as the end of a sentence.
async fn last_words(words: Option<OwnedFd>) -> String {
    let mut kept = Vec::new();
    if let Some(mut words) = words.and_then(|words| pipe::Receiver::from_owned_fd(words).ok()) {
        let mut buffer = [0; MAX_LAST_WORDS];
        while let Ok(length @ 1..) = words.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..length]);
            kept.drain(..kept.len().saturating_sub(MAX_LAST_WORDS));
        }
    }
    let text = String::from_utf8_lossy(&kept);
    // QEMU warns about what it survives, such as a hub on which slirp has the shim's filter for a neighbour.
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains(": warning: "))
        .collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
}

/// Arguments of a QEMU that is nothing but slirp behind the socket `wire`.
fn arguments(ports: &[PortForward], wire: RawFd) -> Vec<String> {
    let mut user = format!(
        "user,id=slirp,ipv4=on,ipv6=off,net={SUBNET},host={GATEWAY},dns={RESOLVER},dhcpstart={GUEST},restrict=off"
    );
    let forwards = ports.iter().map(|PortForward { bind, host, guest, protocol }| {
        format!(",hostfwd={protocol}:{bind}:{host}-{GUEST}:{guest}")
    });
    user.extend(forwards);
    let wire = format!("stream,id=wire,addr.type=fd,addr.str={wire}");
    [
        &["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-serial", "none"][..],
        // Nothing is ever translated, but an accelerator it must have.
        &["-machine", "none", "-accel", "tcg,tb-size=1"],
        &["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        &["-netdev", &user, "-netdev", &wire],
        &["-netdev", "hubport,id=hub-slirp,hubid=0,netdev=slirp"],
        &["-netdev", "hubport,id=hub-wire,hubid=0,netdev=wire"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;

//! The messages between a starter and its shim, before the control socket answers.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use boxlite_home::admission::LiveClaim;
use boxlite_types::{Error, ErrorCause, ErrorKind, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use super::launch::LaunchSpec;

/// From the starter to its shim, in a memory file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaunchMessage {
    pub(super) spec: LaunchSpec,
    /// The range of the claim on disk space that is handed over as a descriptor.
    pub(super) claimed: Option<LiveClaim>,
    /// The range of the claim on memory that is handed over as a descriptor, after that on disk space.
    pub(super) promised: Option<LiveClaim>,
    /// Says that the guest is to wait for its box, which comes in a second message.
    pub(super) wait: Option<WaitSpec>,
    /// Whether a handle of the process that the box ends with is handed over, after the claims.
    #[serde(default)]
    pub(super) tied: bool,
}

/// The facts about a box that must be known before it is known which one it is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct WaitSpec {
    /// Bytes that a file of its QEMU may have.
    pub(super) file_size: u64,
}

/// From the shim to its starter, once, through the status channel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LaunchReport {
    /// QEMU runs and the control socket answers.
    Ready { shim_pid: u32, vm_pid: u32 },
    /// Neither is the case.
    Failed { kind: ErrorKind, cause: Option<ErrorCause>, message: String },
}

/// The byte that the starter sends through the status channel to let its shim go on.
pub(super) const PROCEED: u8 = b'!';

/// The byte that the shim of a guest that waits sends through the status channel: that it waits, and later that it has
/// taken its box.
pub(super) const WAITING: u8 = b'w';
/// See [`WAITING`].
pub(super) const TAKEN: u8 = b't';

/// Most descriptors that come with a box: of the message, the box's lock, and its claims.
pub(super) const MAX_ASSIGNED: usize = 4;

/// Sends a box to the shim of a guest that waits: the memory file of its message, its lock, and its claims.
pub(super) fn assign(status: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ASSIGNED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    rustix::net::sendmsg(status, &[IoSlice::new(b"b")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a box, and returns the descriptors of [`assign`]: none once the starter has gone.
pub(super) fn await_box(status: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ASSIGNED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0; 1];
    loop {
        let received = rustix::net::recvmsg(
            status,
            &mut [IoSliceMut::new(&mut word)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        match received {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map(drop)?,
        }
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(descriptors)
}

/// Waits until the starter behind `status` lets the shim go on.
///
/// # Errors
/// `Io` when the start was called off, or the starter has ended.
pub(super) fn wait_to_proceed(mut status: &UnixStream) -> Result<()> {
    let mut word = [0; 1];
    let doing = "waiting for the start to be recorded";
    match status.read(&mut word) {
        Ok(1) if word == [PROCEED] => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::Io, "the start was called off")),
        Err(error) => {
            Err(Error::new(ErrorKind::Io, "the starter could not be heard").because(error).while_doing(doing))
        }
    }
}

//! The requests of a shim to its steward, and their form: one short message each, of a kind and a number.
//!
//! A shim that a guest has taken over says what it likes. So there is nothing in a message to parse but a number, and no
//! request concerns any box but the shim's own.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use boxlite_types::{HealthStatus, PauseCause};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// Bytes of a request: its kind and its number.
const LENGTH: usize = 9;

/// Most files that come with an answer.
const MAX_FILES: usize = 2;

/// A request of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The box runs: what is to be done at its end is to be done from now on.
    Runs,
    /// Garbage is to be collected until so many bytes are free.
    FreeSpace(u64),
    /// The overlay has grown: what is in it is no longer claimed.
    FollowClaim,
    /// A guest that must finish needs the home's flush reserve.
    ReleaseReserve,
    /// QEMU has gone: the programs that serve its devices are to end.
    EndDevices,
    /// The guest of the template did not come up.
    DiscardTemplate,
    /// A log has reached its cap: it becomes the old one; the answer has the new one.
    SetAside(LogName),
    /// The answer has the main process's log and, where there is one, the old one.
    OpenLog,
    /// The guest is to be kept as a template; the answer has the file for its devices' state, unless it cannot be kept.
    StageTemplate,
    /// The guest's devices have told their state: its memory is to be copied; the answer comes when that is done.
    KeepTemplate,
    /// The guest stands still.
    Paused(PauseCause),
    /// The guest goes on.
    Resumed,
    /// The box's health has changed.
    Health(HealthStatus),
    /// The box goes on with the overlay that lies at its path by now; the answer has it, open for reading and writing, and
    /// open for reading.
    OpenOverlay,
}

/// A log of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shim) enum LogName {
    /// The main process's output.
    Main,
    /// The guest's serial console.
    Console,
    /// The shim's own words.
    Own,
}

impl Request {
    fn encode(self) -> [u8; LENGTH] {
        let (kind, number) = match self {
            Self::Runs => (0, 0),
            Self::FreeSpace(wanted) => (1, wanted),
            Self::FollowClaim => (2, 0),
            Self::ReleaseReserve => (3, 0),
            Self::EndDevices => (4, 0),
            Self::DiscardTemplate => (5, 0),
            Self::SetAside(LogName::Main) => (6, 0),
            Self::SetAside(LogName::Console) => (6, 1),
            Self::SetAside(LogName::Own) => (6, 2),
            Self::OpenLog => (7, 0),
            Self::StageTemplate => (8, 0),
            Self::KeepTemplate => (9, 0),
            Self::Paused(PauseCause::HostDisk) => (10, 0),
            Self::Paused(PauseCause::Volume) => (10, 1),
            Self::Paused(PauseCause::DiskQuota) => (10, 2),
            Self::Paused(PauseCause::User) => (10, 3),
            Self::Resumed => (11, 0),
            Self::OpenOverlay => (12, 0),
            Self::Health(HealthStatus::Starting) => (13, 0),
            Self::Health(HealthStatus::Healthy) => (13, 1),
            Self::Health(HealthStatus::Unhealthy) => (13, 2),
        };
        let mut message = [kind; LENGTH];
        message[1..].copy_from_slice(&u64::to_le_bytes(number));
        message
    }

    fn decode(message: &[u8]) -> Option<Self> {
        let message: [u8; LENGTH] = message.try_into().ok()?;
        let [kind, number @ ..] = message;
        Some(match (kind, u64::from_le_bytes(number)) {
            (0, 0) => Self::Runs,
            (1, wanted) => Self::FreeSpace(wanted),
            (2, 0) => Self::FollowClaim,
            (3, 0) => Self::ReleaseReserve,
            (4, 0) => Self::EndDevices,
            (5, 0) => Self::DiscardTemplate,
            (6, 0) => Self::SetAside(LogName::Main),
            (6, 1) => Self::SetAside(LogName::Console),
            (6, 2) => Self::SetAside(LogName::Own),
            (7, 0) => Self::OpenLog,
            (8, 0) => Self::StageTemplate,
            (9, 0) => Self::KeepTemplate,
            (10, 0) => Self::Paused(PauseCause::HostDisk),
            (10, 1) => Self::Paused(PauseCause::Volume),
            (10, 2) => Self::Paused(PauseCause::DiskQuota),
            (10, 3) => Self::Paused(PauseCause::User),
            (11, 0) => Self::Resumed,
            (12, 0) => Self::OpenOverlay,
            (13, 0) => Self::Health(HealthStatus::Starting),
            (13, 1) => Self::Health(HealthStatus::Healthy),
            (13, 2) => Self::Health(HealthStatus::Unhealthy),
            _ => return None,
        })
    }

    /// Sends it, and waits for room in the socket unless `flags` say otherwise.
    pub(super) fn send(self, socket: impl AsFd, flags: SendFlags) -> io::Result<()> {
        send(socket, &self.encode(), &[], flags)
    }

    /// Waits for one; `None` when the shim has gone. What no shim says is left out: its sender lives, and so does its box.
    pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Self>> {
        static TOLD: Once = Once::new();
        loop {
            // One byte more, so that a longer message is seen to be one.
            let mut message = [0; LENGTH + 1];
            let (length, _) = receive(&socket, &mut message)?;
            if let Some(request) = Self::decode(&message[..length]) {
                return Ok(Some(request));
            }
            if length == 0 && has_hung_up(&socket)? {
                return Ok(None);
            }
            TOLD.call_once(|| tracing::warn!(length, "the shim says what no shim says, which is left out"));
        }
    }
}

/// Whether the other end is closed: an empty message looks like that otherwise.
fn has_hung_up(socket: impl AsFd) -> io::Result<bool> {
    let mut ends = [PollFd::new(&socket, PollFlags::empty())];
    loop {
        match poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(rustix::io::Errno::INTR) => {}
            polled => {
                polled?;
                return Ok(ends[0].revents().contains(PollFlags::HUP));
            }
        }
    }
}

/// Answers a request: whether it was carried out, and the files that belong to the answer.
pub(super) fn answer(socket: impl AsFd, done: bool, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(socket, &[u8::from(done)], files, SendFlags::DONTWAIT)
}

/// Waits for the answer.
///
/// # Errors
/// `UnexpectedEof` when the steward has gone.
pub(super) fn answered(socket: impl AsFd) -> io::Result<(bool, Vec<OwnedFd>)> {
    let mut message = [0; 1];
    match receive(socket, &mut message)? {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, files) => Ok((message[0] == 1, files)),
    }
}

fn send(socket: impl AsFd, message: &[u8], files: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

fn receive(socket: impl AsFd, message: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [IoSliceMut::new(message)];
        match rustix::net::recvmsg(&socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut files = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            files.extend(descriptors);
        }
    }
    Ok((received.bytes, files))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Request; 21] = [
        Request::Runs,
        Request::FreeSpace(u64::MAX),
        Request::FollowClaim,
        Request::ReleaseReserve,
        Request::EndDevices,
        Request::DiscardTemplate,
        Request::SetAside(LogName::Main),
        Request::SetAside(LogName::Console),
        Request::SetAside(LogName::Own),
        Request::OpenLog,
        Request::StageTemplate,
        Request::KeepTemplate,
        Request::Paused(PauseCause::HostDisk),
        Request::Paused(PauseCause::Volume),
        Request::Paused(PauseCause::DiskQuota),
        Request::Paused(PauseCause::User),
        Request::Resumed,
        Request::OpenOverlay,
        Request::Health(HealthStatus::Starting),
        Request::Health(HealthStatus::Healthy),
        Request::Health(HealthStatus::Unhealthy),
    ];

    #[test]
    fn what_is_asked_is_understood() {
        for request in ALL {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }

    /// Before: the first of these messages ended the service, while the shim lived.
    #[test]
    fn only_the_end_of_the_socket_is_the_shims_end() {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let kind = rustix::net::SocketType::SEQPACKET;
        let (own, shim) =
            rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
        for nonsense in [&[][..], &[99; LENGTH], &[0; LENGTH + 5], &[0; 3]] {
            send(&shim, nonsense, &[], SendFlags::empty()).unwrap();
        }
        Request::Runs.send(&shim, SendFlags::empty()).unwrap();
        assert_eq!(Request::receive(&own).unwrap(), Some(Request::Runs));
        send(&shim, &[1], &[], SendFlags::empty()).unwrap();
        Request::Resumed.send(&shim, SendFlags::empty()).unwrap();
        drop(shim);
        assert_eq!(Request::receive(&own).unwrap(), Some(Request::Resumed));
        assert_eq!(Request::receive(&own).unwrap(), None);
    }

    proptest! {
        /// A message has one meaning or none: what is understood is exactly what a shim would have sent.
        #[test]
        fn whatever_is_sent_is_a_request_or_nothing(message in proptest::collection::vec(0..14_u8, 0..12)) {
            if let Some(request) = Request::decode(&message) {
                prop_assert_eq!(request.encode().to_vec(), message);
            }
        }
    }
}

//! The messages between starter and jailer: one each, with or without a descriptor, over a socket that
//! keeps messages apart.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::report::JailReport;
use crate::spec::JailSpec;

/// The first argument of a program that is to be the jailer.
pub(crate) const JAILER: &str = "boxlite-jail";

/// The starter's message to the jailer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JailOrder {
    pub(crate) spec: JailSpec,
    /// The starter's process id, with whose end the jail ends.
    pub(crate) starter: i32,
}

impl JailOrder {
    /// The order of this process, which wants the jail of `spec`.
    pub(crate) fn of(spec: &JailSpec) -> Self {
        Self { spec: spec.clone(), starter: rustix::process::getpid().as_raw_pid() }
    }
}

/// The jailer's one message to its starter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum JailAnswer {
    /// The program runs; a handle of it comes along.
    Started { pid: u32, report: JailReport },
    /// Nothing of the jail is left.
    Failed(String),
}

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// A connected pair of sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `bytes`, which may not be empty, and `descriptor` with them.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a message and what came with it; `None` when the other end has gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            descriptor = descriptors.next();
        }
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some((bytes, descriptor)))
}

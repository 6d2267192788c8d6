//! How the boxes of a network find each other: mailboxes in a directory, and offers of channels.
//!
//! # Layout
//! `<id>.json` says who the box is, and is written before `<id>.sock`, its mailbox, is bound. Both lie there while the box runs.
//! The remains of a killed box answer no offer, until the box starts again or the network is removed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};

use boxlite_home::durable::{self, Slot};
use boxlite_types::{Doing, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::{Member, MemberNetwork};

/// The longest message about a member.
const MAX_MESSAGE: usize = 4096;

/// How long a steward waits before it sends offers again that found a mailbox full.
const RETRY_SECONDS: i64 = 1;

/// Bytes of packets that may wait in a channel, as far as the host allows.
const CHANNEL_BUFFER: usize = 1 << 20;

/// Another box of the network, with this box's end of a channel to it.
#[derive(Debug)]
pub(super) struct Acquaintance {
    pub(super) member: Member,
    pub(super) channel: OwnedFd,
}

/// A running box's mailbox, which its steward keeps.
#[derive(Debug)]
pub struct Mailbox {
    socket: OwnedFd,
    /// Where the box's shim hears of others.
    arrivals: OwnedFd,
    /// Offers that found a mailbox full.
    unsent: VecDeque<Offer>,
    paths: [PathBuf; 2],
    /// The only user who may send offers.
    owner: u32,
}

/// An offer on its way: the other end of the channel goes with it.
#[derive(Debug)]
struct Offer {
    mailbox: OwnedFd,
    message: Vec<u8>,
    channel: OwnedFd,
}

/// Makes the box a member of its network, as long as the mailbox lives: from here on others find it. Returns the boxes that it
/// has found, and where it hears of further ones.
///
/// The caller holds the box's lock, so that no other process has its mailbox.
///
/// # Errors
/// `Io` when the mailbox cannot be made, `NotFound` where the network has been removed.
pub(super) fn enter(network: &MemberNetwork) -> Result<(Mailbox, Vec<Acquaintance>, OwnedFd)> {
    let directory = &network.directory;
    if !directory.is_dir() {
        return Err(
            Error::not_found(format!("there is no network '{}' any more", network.name)).at(directory)
        );
    }
    let message = serde_json::to_vec(&network.own)
        .map_err(|error| Error::bug("a member of a network cannot be described").because(error))?;
    let [description, socket_path] = paths_of(directory, &network.own.id);
    durable::remove_volatile(&socket_path)?;
    Slot::emptied(&description)?.write_volatile(&message)?;
    let doing = "making the mailbox";
    let socket = bind(&socket_path).doing(doing, &socket_path)?;
    let (arrivals, shims) = channel().doing(doing, &socket_path)?;
    let mut mailbox = Mailbox {
        socket,
        arrivals,
        unsent: VecDeque::new(),
        paths: [description, socket_path],
        owner: rustix::process::geteuid().as_raw(),
    };
    let met = mailbox.offer_to_all(network, &message)?;
    tracing::info!(network = network.name, members = met.len(), "the box joins its network");
    Ok((mailbox, met, shims))
}

impl Mailbox {
    /// Offers a channel to each box that has a mailbox.
    fn offer_to_all(&mut self, network: &MemberNetwork, message: &[u8]) -> Result<Vec<Acquaintance>> {
        let directory = &network.directory;
        let mut met = Vec::new();
        for entry in std::fs::read_dir(directory).doing("listing", directory)? {
            let path = entry.doing("listing", directory)?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "json") || id == network.own.id {
                continue;
            }
            let Some(member) = described(&path).filter(|member| member.id == id) else { continue };
            let Ok(mailbox) = connect(&path.with_extension("sock")) else { continue };
            let (ours, theirs) = channel().doing("making a channel to", &path)?;
            let offer = Offer { mailbox, message: message.to_vec(), channel: theirs };
            match offer.send() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.push_back(offer),
                // It has gone since.
                Err(_) => continue,
            }
            met.push(Acquaintance { member, channel: ours });
        }
        Ok(met)
    }

    /// Every descriptor of it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let unsent =
            self.unsent.iter().flat_map(|offer| [offer.mailbox.as_raw_fd(), offer.channel.as_raw_fd()]);
        [self.socket.as_raw_fd(), self.arrivals.as_raw_fd()].into_iter().chain(unsent).collect()
    }

    /// Passes offers on to the box's shim until that has gone, and removes the mailbox. Blocks.
    pub fn serve(mut self) {
        loop {
            let mut events =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.arrivals, PollFlags::empty())];
            let retry = Timespec { tv_sec: RETRY_SECONDS, tv_nsec: 0 };
            let polled = poll(&mut events, (!self.unsent.is_empty()).then_some(&retry));
            if polled.is_err_and(|error| error != rustix::io::Errno::INTR) || !events[1].revents().is_empty()
            {
                break;
            }
            if events[0].revents().contains(PollFlags::IN) {
                self.pass_on();
            }
            self.unsent.retain(
                |offer| matches!(offer.send(), Err(error) if error.kind() == io::ErrorKind::WouldBlock),
            );
        }
        for path in self.paths.iter().rev() {
            if let Err(error) = durable::remove_volatile(path) {
                tracing::debug!(error = %error.chain(), "what others find the box by is left");
            }
        }
    }

    /// Passes one offer on, if it comes from the home's user and can be understood.
    fn pass_on(&self) {
        let mut message = [0; MAX_MESSAGE];
        let Ok(Received { length, files, sender }) = receive(self.socket.as_fd(), &mut message) else {
            return;
        };
        let [channel] = &files[..] else { return };
        let text = &message[..length];
        if sender != Some(self.owner) || serde_json::from_slice::<Member>(text).is_err() {
            tracing::warn!(?sender, length, "what is no offer came to the box's mailbox");
            return;
        }
        if let Err(error) = send(self.arrivals.as_fd(), text, &[channel.as_fd()]) {
            tracing::warn!(%error, "the box does not hear of another of its network");
        }
    }
}

impl Offer {
    fn send(&self) -> io::Result<()> {
        send(self.mailbox.as_fd(), &self.message, &[self.channel.as_fd()])
    }
}

/// Waits for another box of the network; `None` when there is nobody left who would tell. What cannot be understood is left out.
pub(super) async fn arrived(arrivals: &UnixDatagram) -> io::Result<Option<Acquaintance>> {
    loop {
        let mut message = [0; MAX_MESSAGE];
        let received =
            arrivals.async_io(Interest::READABLE, || receive(arrivals.as_fd(), &mut message)).await?;
        let Received { length, mut files, .. } = received;
        if length == 0 {
            return Ok(None);
        }
        if let (Ok(member), Some(channel)) = (serde_json::from_slice(&message[..length]), files.pop()) {
            return Ok(Some(Acquaintance { member, channel }));
        }
    }
}

/// The description and the mailbox of the box `id`.
fn paths_of(directory: &Path, id: &str) -> [PathBuf; 2] {
    [directory.join(format!("{id}.json")), directory.join(format!("{id}.sock"))]
}

fn described(path: &Path) -> Option<Member> {
    serde_json::from_slice(&Slot::read(path).ok()??).ok()
}

/// A pair of sockets that keep packets apart; neither end waits.
fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&one, &other] {
        sockopt::set_socket_send_buffer_size(end, CHANNEL_BUFFER)?;
    }
    Ok((one, other))
}

/// Binds a mailbox that only its user may send to, and that tells who its senders are. Nothing is ever sent through it.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let (directory, short) = short_name(path)?;
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    sockopt::set_socket_passcred(&socket, true)?;
    let address = rustix::net::SocketAddrUnix::new(&short)?;
    rustix::net::bind(&socket, &address)?;
    drop(directory);
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::shutdown(&socket, Shutdown::Write)?;
    Ok(socket.into())
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (_directory, short) = short_name(path)?;
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(short)?;
    Ok(socket.into())
}

/// A socket's address holds 107 bytes, so that it is named through a descriptor of its directory.
fn short_name(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = File::from(rustix::fs::open(parent, flags, Mode::empty())?);
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, short))
}

fn send(socket: BorrowedFd<'_>, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(files));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, flags).map(drop)?)
}

struct Received {
    length: usize,
    files: Vec<OwnedFd>,
    /// The user id of the sender's process, where the socket tells.
    sender: Option<u32>,
}

fn receive(socket: BorrowedFd<'_>, message: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(message)], &mut control, flags)?;
    let (mut files, mut sender) = (Vec::new(), None);
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(descriptors) => files.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.uid.as_raw()),
            _ => {}
        }
    }
    Ok(Received { length: received.bytes, files, sender })
}

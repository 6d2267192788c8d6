//! The packets of a running box to and from the others of its network.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boxlite_proto::PeerUsage;
use boxlite_types::MAX_MEMBERS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::super::{MacAddr, RESOLVER};
use super::meeting::{self, Acquaintance};
use super::packet::{self, GuestFrame};
use super::{MAX_PACKET, Member, MemberNetwork, names};

/// Channels to one box that are listened to: two boxes that start at once make one each.
const MAX_CHANNELS: usize = 2;

/// Packets after which a listener lets the shim's other tasks run.
const PACKETS_PER_TURN: usize = 64;

/// A box's way to the others of its network.
#[derive(Debug)]
pub struct Exchange {
    network: MemberNetwork,
    mac: MacAddr,
    peers: Mutex<Vec<Peer>>,
    counts: PeerCounts,
    /// What is there when the box starts, and what tells of others; taken when the exchange runs.
    beginning: Mutex<Option<(Vec<Acquaintance>, OwnedFd)>>,
}

#[derive(Debug, Default)]
struct PeerCounts {
    sent: AtomicU64,
    received: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
}

/// Another box of the network that runs.
#[derive(Debug)]
struct Peer {
    member: Member,
    mac: MacAddr,
    /// The newest is the last.
    channels: Vec<PeerChannel>,
}

#[derive(Debug)]
struct PeerChannel {
    socket: Arc<UnixDatagram>,
    listener: AbortHandle,
}

impl Drop for PeerChannel {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What becomes of a frame of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Taken {
    /// It is no matter of the network's.
    Elsewhere,
    /// The guest gets this frame for an answer.
    Answered(Vec<u8>),
    /// It went to another box.
    Sent,
    /// It was not carried.
    Dropped,
}

impl Exchange {
    pub(super) fn new(
        network: MemberNetwork,
        mac: MacAddr,
        met: Vec<Acquaintance>,
        arrivals: OwnedFd,
    ) -> Self {
        let beginning = Mutex::new(Some((met, arrivals)));
        Self { network, mac, peers: Mutex::default(), counts: PeerCounts::default(), beginning }
    }

    /// What the box has exchanged with others.
    pub(in crate::net) fn usage(&self) -> PeerUsage {
        let PeerCounts { sent, received, lost, refused } = &self.counts;
        let [sent, received, lost, refused] =
            [sent, received, lost, refused].map(|it| it.load(Ordering::Relaxed));
        PeerUsage { connected: self.peers().len() as u64, sent, received, lost, refused }
    }

    /// Decides about a frame of the guest, and sends it where it is for another box.
    pub(in crate::net) fn take(&self, frame: &[u8]) -> Taken {
        match packet::outgoing(frame, self.network.subnet, self.network.own.address) {
            GuestFrame::Elsewhere => self.elsewhere(frame),
            GuestFrame::Asks(address) => match self.mac_of(address) {
                Some(mac) => packet::arp_reply(frame, address, mac).map_or(Taken::Dropped, Taken::Answered),
                // The stack answers for its resolver.
                None if address == RESOLVER && !self.network.internal => Taken::Elsewhere,
                None => Taken::Dropped,
            },
            GuestFrame::Tells => Taken::Dropped,
            GuestFrame::Packet(to, packet) => self.send(to, packet),
            GuestFrame::Refused => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                Taken::Dropped
            }
        }
    }

    /// Answers questions for names of the network. In an internal one there is nothing else.
    fn elsewhere(&self, frame: &[u8]) -> Taken {
        let answered = |answer: Option<Vec<u8>>| answer.map_or(Taken::Dropped, Taken::Answered);
        let otherwise = if self.network.internal { Taken::Dropped } else { Taken::Elsewhere };
        let Some((question, message)) = names::question(frame) else { return otherwise };
        let addresses = self.addresses_of(&question.name);
        if !addresses.is_empty() {
            return answered(names::answer(frame, (&question, message), &addresses));
        }
        if self.network.internal {
            return answered(names::no_such_name(frame, (&question, message)));
        }
        otherwise
    }

    /// The addresses of the boxes with that name, in an order that changes, so that those with one alias share what it is asked for.
    fn addresses_of(&self, name: &str) -> Vec<Ipv4Addr> {
        let peers = self.peers();
        let all = std::iter::once(&self.network.own).chain(peers.iter().map(|peer| &peer.member));
        let mut addresses: Vec<Ipv4Addr> = all
            .filter(|member| member.is_called(name, &self.network.name))
            .map(|member| member.address)
            .collect();
        let turn = rand::random::<u32>() as usize % addresses.len().max(1);
        addresses.rotate_left(turn);
        addresses
    }

    fn mac_of(&self, address: Ipv4Addr) -> Option<MacAddr> {
        if address == RESOLVER {
            return self.network.internal.then(|| MacAddr::of_box("resolver"));
        }
        self.peers().iter().find(|peer| peer.member.address == address).map(|peer| peer.mac)
    }

    /// Hands a packet to the box with that address, without waiting for it.
    fn send(&self, to: Ipv4Addr, packet: &[u8]) -> Taken {
        let mut peers = self.peers();
        let Some(peer) = peers.iter_mut().find(|peer| peer.member.address == to) else {
            return Taken::Dropped;
        };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while let Some(channel) = peer.channels.last() {
            match rustix::net::send(&*channel.socket, packet, flags) {
                Ok(_) => {
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    return Taken::Sent;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS | rustix::io::Errno::NOMEM) => break,
                // Its other end is closed.
                Err(_) => drop(peer.channels.pop()),
            }
        }
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        Taken::Dropped
    }

    /// Listens to the other boxes of the network for as long as the future lives; frames for the guest go to `to_guest`.
    ///
    /// # Errors
    /// When a socket cannot be listened to at all.
    pub(in crate::net) async fn run(self: Arc<Self>, to_guest: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        let beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((met, arrivals)) = beginning else { return Ok(()) };
        let arrivals = UnixDatagram::from_std(StdDatagram::from(arrivals))?;
        let mut listeners = JoinSet::new();
        for acquaintance in met {
            self.meet(acquaintance, &mut listeners, &to_guest);
        }
        loop {
            tokio::select! {
                arrived = meeting::arrived(&arrivals) => match arrived? {
                    Some(acquaintance) => self.meet(acquaintance, &mut listeners, &to_guest),
                    // The steward has gone, and the shim is about to.
                    None => std::future::pending().await,
                },
                Some(_) = listeners.join_next() => {}
            }
        }
    }

    /// Listens to a channel to another box of the network; one that cannot be listened to costs the box that other one alone.
    fn meet(
        self: &Arc<Self>,
        Acquaintance { member, channel }: Acquaintance,
        listeners: &mut JoinSet<()>,
        to_guest: &mpsc::Sender<Vec<u8>>,
    ) {
        let own = &self.network.own;
        let is_of_network = self.network.subnet.contains(member.address);
        if member.id == own.id || member.address == own.address || !is_of_network {
            tracing::warn!(?member, "a box that cannot be of this network is left out");
            return;
        }
        let socket = match UnixDatagram::from_std(StdDatagram::from(channel)) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return tracing::warn!(%error, ?member, "a box of this network is left out"),
        };
        let mut peers = self.peers();
        // An address may have passed to another box, and the end of the one before not been noticed yet.
        for peer in peers.iter_mut() {
            peer.channels.retain(|channel| !has_hung_up(&channel.socket));
        }
        peers.retain(|peer| !peer.channels.is_empty());
        let is_taken =
            peers.iter().any(|peer| peer.member.id != member.id && peer.member.address == member.address);
        if is_taken || peers.len() >= MAX_MEMBERS {
            tracing::warn!(?member, is_taken, "a box of this network is left out");
            return;
        }
        let listening = Arc::clone(self).listen(Arc::clone(&socket), member.clone(), to_guest.clone());
        let channel = PeerChannel { socket, listener: listeners.spawn(listening) };
        if let Some(peer) = peers.iter_mut().find(|peer| peer.member.id == member.id) {
            peer.member = member;
            peer.channels.push(channel);
            if peer.channels.len() > MAX_CHANNELS {
                peer.channels.remove(0);
            }
        } else {
            let mac = MacAddr::of_box(&member.id);
            peers.push(Peer { member, mac, channels: vec![channel] });
        }
    }

    /// Takes in what the box `from` sends, until it closes the channel.
    async fn listen(
        self: Arc<Self>,
        socket: Arc<UnixDatagram>,
        from: Member,
        to_guest: mpsc::Sender<Vec<u8>>,
    ) {
        // One byte more than is taken, so that a longer packet is seen to be one.
        let mut buffer = [0; MAX_PACKET + 1];
        let mac = MacAddr::of_box(&from.id);
        let mut taken = 0;
        while let Ok(length @ 1..) = socket.recv(&mut buffer).await {
            match packet::incoming(&buffer[..length], from.address, self.network.own.address) {
                Some(packet) if length <= MAX_PACKET => {
                    let frame = packet::frame(packet, mac, self.mac);
                    if to_guest.send(frame).await.is_err() {
                        break;
                    }
                    self.counts.received.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            taken += 1;
            if taken % PACKETS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut peers = self.peers();
        for peer in peers.iter_mut() {
            peer.channels.retain(|channel| !Arc::ptr_eq(&channel.socket, &socket));
        }
        peers.retain(|peer| !peer.channels.is_empty());
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_hung_up(socket: &UnixDatagram) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let polled = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && ends[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;

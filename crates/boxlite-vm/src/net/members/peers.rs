//! The other boxes of one network that run, as one of its boxes reaches them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boxlite_types::{MAX_MEMBERS, Subnet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::super::MacAddr;
use super::meeting::{self, Acquaintance};
use super::{MAX_PACKET, Member, MemberNetwork, packet};

/// Channels to one box that are listened to: two boxes that start at once make one each.
const MAX_CHANNELS: usize = 2;

/// Packets after which a listener lets the shim's other tasks run.
const PACKETS_PER_TURN: usize = 64;

/// A box's way to the others of one of its networks.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) network: MemberNetwork,
    /// The box's own.
    mac: MacAddr,
    running: Mutex<Vec<Peer>>,
    counts: Arc<PeerCounts>,
    /// The acquaintances when the box starts, and the descriptor that tells of others; taken when the exchange runs.
    beginning: Mutex<Option<(Vec<Acquaintance>, OwnedFd)>>,
}

/// The amounts that a box has exchanged with others, over all its networks.
#[derive(Debug, Default)]
pub(super) struct PeerCounts {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Another box of the network that runs.
#[derive(Debug)]
pub(super) struct Peer {
    member: Member,
    mac: MacAddr,
    /// The newest is the last.
    pub(super) channels: Vec<PeerChannel>,
}

#[derive(Debug)]
pub(super) struct PeerChannel {
    pub(super) socket: Arc<UnixDatagram>,
    listener: AbortHandle,
}

impl Drop for PeerChannel {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Peers {
    pub(super) fn new(
        network: MemberNetwork,
        mac: MacAddr,
        counts: Arc<PeerCounts>,
        met: Vec<Acquaintance>,
        arrivals: OwnedFd,
    ) -> Self {
        let beginning = Mutex::new(Some((met, arrivals)));
        Self { network, mac, running: Mutex::default(), counts, beginning }
    }

    pub(super) fn subnet(&self) -> Subnet {
        self.network.subnet
    }

    /// The box's own address in the network.
    pub(super) fn own_address(&self) -> Ipv4Addr {
        self.network.own.address
    }

    /// The ids of the others that run.
    pub(super) fn ids(&self) -> Vec<String> {
        self.running().iter().map(|peer| peer.member.id.clone()).collect()
    }

    /// The addresses of the boxes with that name, the box itself among them.
    pub(super) fn addresses_of(&self, name: &str) -> Vec<Ipv4Addr> {
        let running = self.running();
        let all = std::iter::once(&self.network.own).chain(running.iter().map(|peer| &peer.member));
        all.filter(|member| member.is_called(name, &self.network.name)).map(|member| member.address).collect()
    }

    /// The Ethernet address that stands for the other box with that address.
    pub(super) fn mac_of(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.running().iter().find(|peer| peer.member.address == address).map(|peer| peer.mac)
    }

    /// Hands a packet to the box with that address, without waiting for it; returns whether it was sent.
    pub(super) fn send(&self, to: Ipv4Addr, packet: &[u8]) -> bool {
        let mut running = self.running();
        let Some(peer) = running.iter_mut().find(|peer| peer.member.address == to) else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while let Some(channel) = peer.channels.last() {
            match rustix::net::send(&*channel.socket, packet, flags) {
                Ok(_) => {
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS | rustix::io::Errno::NOMEM) => break,
                // Its other end is closed.
                Err(_) => drop(peer.channels.pop()),
            }
        }
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Listens to the other boxes of the network for as long as the future lives; frames for the guest go to `to_guest`.
    ///
    /// # Errors
    /// When a socket cannot be listened to at all.
    pub(super) async fn run(self: Arc<Self>, to_guest: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
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
    pub(super) fn meet(
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
        let mut running = self.running();
        // An address may have passed to another box, and the end of the one before not been noticed yet.
        for peer in running.iter_mut() {
            peer.channels.retain(|channel| !has_hung_up(&channel.socket));
        }
        running.retain(|peer| !peer.channels.is_empty());
        let is_taken =
            running.iter().any(|peer| peer.member.id != member.id && peer.member.address == member.address);
        if is_taken || running.len() >= MAX_MEMBERS {
            tracing::warn!(?member, is_taken, "a box of this network is left out");
            return;
        }
        let listening = Arc::clone(self).listen(Arc::clone(&socket), member.clone(), to_guest.clone());
        let channel = PeerChannel { socket, listener: listeners.spawn(listening) };
        if let Some(peer) = running.iter_mut().find(|peer| peer.member.id == member.id) {
            peer.member = member;
            peer.channels.push(channel);
            if peer.channels.len() > MAX_CHANNELS {
                peer.channels.remove(0);
            }
        } else {
            let mac = MacAddr::of_box(&member.id);
            running.push(Peer { member, mac, channels: vec![channel] });
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
        let mut running = self.running();
        for peer in running.iter_mut() {
            peer.channels.retain(|channel| !Arc::ptr_eq(&channel.socket, &socket));
        }
        running.retain(|peer| !peer.channels.is_empty());
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_hung_up(socket: &UnixDatagram) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let polled = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && ends[0].revents().contains(PollFlags::HUP)
}

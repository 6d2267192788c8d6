//! The packets of a running box to and from the others of its networks.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use boxlite_proto::PeerUsage;
use futures::future::try_join_all;
use tokio::sync::mpsc;

use super::super::{MacAddr, RESOLVER};
use super::meeting::Acquaintance;
use super::packet::{self, GuestFrame};
use super::peers::{PeerCounts, Peers};
use super::{MemberNetwork, names};

/// A box's way to the others of its networks.
#[derive(Debug)]
pub struct Exchange {
    mac: MacAddr,
    /// Whether something else answers what is for none of the networks.
    has_stack: bool,
    networks: Vec<Arc<Peers>>,
    counts: Arc<PeerCounts>,
}

/// The fate of a frame of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Taken {
    /// It is no matter of the networks'.
    Elsewhere,
    /// The guest gets this frame for an answer.
    Answered(Vec<u8>),
    /// It went to another box.
    Sent,
    /// It was not carried.
    Dropped,
}

impl Exchange {
    pub(super) fn new(mac: MacAddr, has_stack: bool) -> Self {
        Self { mac, has_stack, networks: Vec::new(), counts: Arc::default() }
    }

    /// Adds a network, the boxes that were found there, and where it hears of further ones.
    pub(super) fn add(&mut self, network: MemberNetwork, met: Vec<Acquaintance>, arrivals: OwnedFd) {
        let peers = Peers::new(network, self.mac, Arc::clone(&self.counts), met, arrivals);
        self.networks.push(Arc::new(peers));
    }

    /// Returns how much the box has exchanged with others.
    pub(in crate::net) fn usage(&self) -> PeerUsage {
        let PeerCounts { sent, received, lost, refused } = &*self.counts;
        let [sent, received, lost, refused] =
            [sent, received, lost, refused].map(|it| it.load(Ordering::Relaxed));
        let mut connected: Vec<String> = self.networks.iter().flat_map(|peers| peers.ids()).collect();
        connected.sort_unstable();
        // A box may be in several of the networks.
        connected.dedup();
        PeerUsage { connected: connected.len() as u64, sent, received, lost, refused }
    }

    /// Decides about a frame of the guest, and sends it where it is for another box.
    pub(in crate::net) fn take(&self, frame: &[u8]) -> Taken {
        for peers in &self.networks {
            return match packet::outgoing(frame, peers.subnet(), peers.own_address()) {
                GuestFrame::Elsewhere => continue,
                GuestFrame::Asks(RESOLVER) if self.has_stack => Taken::Elsewhere,
                GuestFrame::Asks(address) => match mac_of(peers, address) {
                    Some(mac) => {
                        packet::arp_reply(frame, address, mac).map_or(Taken::Dropped, Taken::Answered)
                    }
                    None => Taken::Dropped,
                },
                GuestFrame::Packet(to, packet) if peers.send(to, packet) => Taken::Sent,
                GuestFrame::Tells | GuestFrame::Packet(..) => Taken::Dropped,
                GuestFrame::Refused => {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    Taken::Dropped
                }
            };
        }
        self.elsewhere(frame)
    }

    /// Answers questions for names of the networks. Where there is no stack, there is nothing else.
    fn elsewhere(&self, frame: &[u8]) -> Taken {
        let answered = |answer: Option<Vec<u8>>| answer.map_or(Taken::Dropped, Taken::Answered);
        let otherwise = if self.has_stack { Taken::Elsewhere } else { Taken::Dropped };
        let Some((question, message)) = names::question(frame) else { return otherwise };
        let addresses = self.addresses_of(&question.name);
        if !addresses.is_empty() {
            return answered(names::answer(frame, (&question, message), &addresses));
        }
        if self.has_stack {
            return otherwise;
        }
        answered(names::no_such_name(frame, (&question, message)))
    }

    /// The addresses of the boxes with that name, in an order that changes, so that those with one alias share what it is asked for.
    fn addresses_of(&self, name: &str) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> =
            self.networks.iter().flat_map(|peers| peers.addresses_of(name)).collect();
        let turn = rand::random::<u32>() as usize % addresses.len().max(1);
        addresses.rotate_left(turn);
        addresses
    }

    /// Listens to the other boxes of the networks for as long as the future lives; frames for the guest go to `to_guest`.
    ///
    /// # Errors
    /// When a socket cannot be listened to at all.
    pub(in crate::net) async fn run(self: Arc<Self>, to_guest: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        let listening = self.networks.iter().map(|peers| Arc::clone(peers).run(to_guest.clone()));
        try_join_all(listening).await.map(drop)
    }
}

/// The Ethernet address that stands for an address of the network, or for the resolver, where no stack answers for that.
fn mac_of(peers: &Peers, address: Ipv4Addr) -> Option<MacAddr> {
    if address == RESOLVER { Some(MacAddr::of_box("resolver")) } else { peers.mac_of(address) }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;

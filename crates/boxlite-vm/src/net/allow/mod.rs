//! A list of destinations that a box may reach: what else its guest sends is refused.
//!
//! A block of addresses allows what goes to it. A name allows TCP to the addresses that the box's resolver answered with, and
//! there only what asks for an allowed name that stands for that very address: in TLS's hello or in each of HTTP's requests.
//! Another protocol names nobody, so that it passes only where a rule gives its port. An address of a name that lies in a
//! private network, or that is the host's own, is not learnt: else whoever owns the name could lead the box there.
//!
//! The resolver is asked for allowed names alone, over UDP, or it would carry messages to whom it may concern.

mod greeting;
mod http;

mod pins;
mod queries;
mod questions;
mod refusals;
mod stream;
mod tls;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use boxlite_proto::RefusalKind;
use boxlite_types::{AllowRule, AllowTarget, NAME_SERVER_PORTS};

use super::answer::{self, TcpSegment};
use super::connections::OpenConnections;
use super::frame::{ETHERNET_HEADER, RST, SYN, TRANSPORT_AT, address, be16};
use super::route::Ipv4Net;
use super::segment::{self, Connection, ConnectionStep, Sender};
use super::{Flow, GATEWAY, RESOLVER, SUBNET, Solicited};
use greeting::Permits;
use pins::Pins;
use queries::Queries;
pub(super) use refusals::Refusals;
use stream::{Acceptance, ClientStream, StreamVerdict};

/// Connections whose greeting is read, beyond which those of closed connections are forgotten.
const MAX_STREAMS: usize = 1024;
/// Those of closed connections that are kept.
const MAX_CLOSED_STREAMS: usize = 256;

/// The decision about a frame that the filter passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AllowVerdict {
    /// It is carried.
    Carry,
    /// It is not carried, but nothing was refused: it waits, or the guest sends it again.
    Wait,
    /// These frames are carried, in order, of which the one asked about is the last.
    Release(Vec<Vec<u8>>),
    /// It is not carried, since the wire answers it by itself.
    Answer(Vec<u8>),
    /// It leads to where the box may not.
    Refuse(RefusedFrame),
}

/// A destination that was refused, and what both sides are told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedFrame {
    pub(super) kind: RefusalKind,
    pub(super) destination: String,
    pub(super) to_guest: Option<Vec<u8>>,
    /// The end of a connection that the stack has opened.
    pub(super) to_stack: Option<Vec<u8>>,
}

/// The surroundings of a box's network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) connections: &'a OpenConnections,
    pub(super) solicited: &'a Solicited,
    pub(super) now: Instant,
}

/// The list of one box and what it has learnt of its names.
#[derive(Debug)]
pub struct AllowList {
    rules: Vec<AllowRule>,
    /// Addresses of the host, for which no name stands.
    own: Vec<Ipv4Net>,
    pins: Pins,
    queries: Queries,
    streams: HashMap<Connection, ClientStream>,
    /// How many connections of `streams` were ever accepted.
    acceptances: u64,
}

impl AllowList {
    /// Nothing but what `rules` allow; no name leads to `own`, the host's addresses.
    pub fn new(rules: Vec<AllowRule>, own: Vec<Ipv4Net>) -> Self {
        let (pins, queries) = (Pins::default(), Queries::default());
        Self { rules, own, pins, queries, streams: HashMap::new(), acceptances: 0 }
    }

    /// Learns what the stack's `frame` says of names and connections; returns whether the guest may have it.
    pub(super) fn learn(&mut self, frame: &mut [u8], now: Instant) -> bool {
        if let Some((connection @ Connection::Tcp { .. }, step)) = segment::read(frame, Sender::Stack) {
            self.learn_of_stream(frame, connection, step);
            return true;
        }
        let is_answer = be16(frame, 12) == Some(0x0800)
            && frame.get(ETHERNET_HEADER) == Some(&0x45)
            && be16(frame, ETHERNET_HEADER + 6).map(|place| place & 0x1fff) == Some(0)
            && frame.get(ETHERNET_HEADER + 9) == Some(&17)
            && address(frame, ETHERNET_HEADER + 12) == Some(RESOLVER);
        !is_answer || self.learn_names(frame, now).is_some()
    }

    fn learn_of_stream(&mut self, frame: &[u8], connection: Connection, step: ConnectionStep) {
        let Some(stream) = self.streams.get_mut(&connection) else { return };
        match (TcpSegment::read(frame), step) {
            (_, ConnectionStep::End) => drop(self.streams.remove(&connection)),
            (Some(segment), ConnectionStep::Accept) => {
                let acceptance = Acceptance { number: segment.sequence, order: self.acceptances };
                self.acceptances += 1;
                stream.accepted(segment.acknowledged, acceptance);
            }
            (Some(segment), _) => stream.acknowledged(segment.acknowledged),
            (None, _) => {}
        }
    }

    /// Decides about the guest's `frame`, which the filter passed; a question to the resolver gets another number.
    pub(super) fn judge(&mut self, frame: &mut [u8], around: Surroundings<'_>) -> AllowVerdict {
        let Some((connection, step)) = segment::read(frame, Sender::Guest) else {
            let is_arp = be16(frame, 12) == Some(0x0806);
            return if is_arp { AllowVerdict::Carry } else { AllowVerdict::Wait };
        };
        match connection {
            Connection::Ping { peer, .. } if SUBNET.contains(peer) || self.block_allows(peer, None) => {
                AllowVerdict::Carry
            }
            Connection::Ping { peer, .. } => {
                let to_guest = answer::prohibition(frame);
                refuse(RefusalKind::Ping, peer.to_string(), to_guest, None)
            }
            Connection::Udp { guest_port } => self.judge_datagram(frame, guest_port, around),
            Connection::Tcp { peer: GATEWAY, .. } => AllowVerdict::Carry,
            Connection::Tcp { peer, peer_port, .. } if self.block_allows(peer, Some(peer_port)) => {
                AllowVerdict::Carry
            }
            Connection::Tcp { .. }
                if step != ConnectionStep::Open
                    && around.connections.opened_by(connection) == Some(Sender::Stack) =>
            {
                AllowVerdict::Carry
            }
            Connection::Tcp { peer, peer_port, .. } => match TcpSegment::read(frame) {
                Some(segment) if step == ConnectionStep::Open => {
                    self.judge_opening(connection, &segment, around)
                }
                Some(segment) => {
                    self.judge_segment(frame, connection, &segment, (peer, peer_port), around.now)
                }
                None => AllowVerdict::Wait,
            },
        }
    }

    fn block_allows(&self, peer: Ipv4Addr, port: Option<u16>) -> bool {
        self.rules.iter().any(|rule| match rule.target {
            AllowTarget::Block { address, prefix } => {
                Ipv4Net::new(address, prefix).contains(peer) && (rule.port.is_none() || rule.port == port)
            }
            AllowTarget::Name(_) | AllowTarget::Below(_) => false,
        })
    }

    fn judge_datagram(
        &mut self,
        frame: &mut [u8],
        guest_port: u16,
        around: Surroundings<'_>,
    ) -> AllowVerdict {
        let (peer, port) = (address(frame, ETHERNET_HEADER + 16), be16(frame, TRANSPORT_AT + 2));
        let Some((peer, peer_port)) = peer.zip(port) else { return AllowVerdict::Wait };
        if peer == RESOLVER {
            return self.judge_question(frame, guest_port, around.now);
        }
        let flow = Flow { peer, peer_port, guest_port };
        if self.block_allows(peer, Some(peer_port)) || around.solicited.allows(flow, around.now) {
            return AllowVerdict::Carry;
        }
        let kind = if NAME_SERVER_PORTS.contains(&peer_port) {
            RefusalKind::Resolver
        } else {
            RefusalKind::Datagram
        };
        refuse(kind, format!("{peer}:{peer_port}"), answer::prohibition(frame), None)
    }

    fn judge_opening(
        &mut self,
        connection: Connection,
        segment: &TcpSegment<'_>,
        around: Surroundings<'_>,
    ) -> AllowVerdict {
        let Connection::Tcp { peer, peer_port, .. } = connection else { return AllowVerdict::Wait };
        let allowed = AllowedNames { list: (&self.rules, &self.pins), peer, peer_port, now: around.now };
        if !allowed.any(|_| true) {
            let kind = if NAME_SERVER_PORTS.contains(&peer_port) {
                RefusalKind::Resolver
            } else {
                RefusalKind::Address
            };
            return refuse(kind, format!("{peer}:{peer_port}"), segment.refusal(), None);
        }
        if !segment.data.is_empty() {
            return AllowVerdict::Wait;
        }
        let before = self.streams.get(&connection);
        // The same question again is a repetition until it is answered, and then it is another.
        if !before.is_some_and(|stream| stream.is_awaiting(segment.sequence)) {
            let stream = ClientStream::asked(segment.sequence, before);
            if self.streams.len() >= MAX_STREAMS {
                self.forget_closed(around.connections);
            }
            self.streams.insert(connection, stream);
        }
        AllowVerdict::Carry
    }

    /// Forgets connections that are closed, but for those that were accepted last: the guest may deceive the count of open
    /// ones, and the stack still be about to repeat an acceptance. Whatever it sends comes in order.
    fn forget_closed(&mut self, connections: &OpenConnections) {
        let is_open = |connection: &Connection| connections.opened_by(*connection).is_some();
        let closed = self.streams.iter().filter(|(connection, _)| !is_open(connection));
        let mut orders: Vec<u64> = closed.filter_map(|(_, stream)| stream.order()).collect();
        orders.sort_unstable();
        let first_kept = orders.get(orders.len().saturating_sub(MAX_CLOSED_STREAMS)).copied();
        self.streams.retain(|connection, stream| {
            is_open(connection) || stream.order().is_some_and(|order| Some(order) >= first_kept)
        });
    }

    fn judge_segment(
        &mut self,
        frame: &[u8],
        connection: Connection,
        segment: &TcpSegment<'_>,
        (peer, peer_port): (Ipv4Addr, u16),
        now: Instant,
    ) -> AllowVerdict {
        if segment.flags & SYN != 0 {
            return AllowVerdict::Wait;
        }
        let Some(stream) = self.streams.get_mut(&connection) else {
            // The rest of a connection that is over.
            return match segment.reset_back() {
                Some(reset) if !segment.data.is_empty() => AllowVerdict::Answer(reset),
                _ => AllowVerdict::Wait,
            };
        };
        if segment.flags & RST != 0 {
            return AllowVerdict::Carry;
        }
        let allowed = AllowedNames { list: (&self.rules, &self.pins), peer, peer_port, now };
        match stream.hear(frame, segment, &allowed) {
            StreamVerdict::Carry => AllowVerdict::Carry,
            StreamVerdict::Lose | StreamVerdict::Hold => AllowVerdict::Wait,
            StreamVerdict::Release(frames) => AllowVerdict::Release(frames),
            StreamVerdict::Refuse(name) => {
                let to_stack = segment.reset_on(stream.next_to_carry());
                self.streams.remove(&connection);
                let (kind, destination) = match name {
                    Some(name) => (RefusalKind::Server, format!("{name} at {peer}:{peer_port}")),
                    None => (RefusalKind::Nameless, format!("{peer}:{peer_port}")),
                };
                refuse(kind, destination, segment.reset_back(), to_stack)
            }
        }
    }
}

/// The allowed names that stand for the peer of a connection, by rules that allow its port.
struct AllowedNames<'a> {
    list: (&'a [AllowRule], &'a Pins),
    peer: Ipv4Addr,
    peer_port: u16,
    now: Instant,
}

impl AllowedNames<'_> {
    /// Whether there is one by a rule that meets `condition`.
    fn any(&self, condition: impl Fn(&AllowRule) -> bool) -> bool {
        let (rules, pins) = self.list;
        // Name servers are allowed by their addresses.
        let is_name_server = NAME_SERVER_PORTS.contains(&self.peer_port);
        !is_name_server
            && pins.names(self.peer, self.now).any(|name| {
                let names_it =
                    |rule: &&AllowRule| rule.target.names(name) && rule.allows_port(self.peer_port);
                rules.iter().filter(names_it).any(&condition)
            })
    }
}

impl Permits for AllowedNames<'_> {
    fn name(&self, name: &str) -> bool {
        let (rules, pins) = self.list;
        let mut naming = rules.iter().filter(|rule| rule.target.names(name));
        naming.any(|rule| rule.allows_port(self.peer_port)) && pins.holds(self.peer, name, self.now)
    }

    fn nameless(&self) -> bool {
        !greeting::is_web(self.peer_port) && self.any(|rule| rule.port.is_some())
    }
}

fn refuse(
    kind: RefusalKind,
    destination: String,
    to_guest: Option<Vec<u8>>,
    to_stack: Option<Vec<u8>>,
) -> AllowVerdict {
    AllowVerdict::Refuse(RefusedFrame { kind, destination, to_guest, to_stack })
}

#[cfg(test)]
#[path = "allow_tests.rs"]
mod tests;

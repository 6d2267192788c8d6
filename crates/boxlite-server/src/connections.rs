//! Limits on connections, so that clients that never show the key cannot keep out those that do.
//!
//! A connection is *unproven* until one of its requests passes the gate, and *proven* from then on. The two kinds are
//! counted apart:
//!
//! - An address holds a limited number of connections of both kinds; further ones are closed at once.
//! - When the unproven ones are at their limit, the oldest of the address that has most of them is closed. A client that
//!   opens many of them therefore takes places from itself first.
//! - An unproven connection is closed after a while. A proven one stays as long as it makes progress.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Most connections that have brought the key.
    pub(crate) max_proven: usize,
    /// Most connections that have not.
    pub(crate) max_unproven: usize,
    /// Most connections of one address, or of one /64 network of IPv6.
    pub(crate) max_per_peer: usize,
    /// How long a connection may stay unproven.
    pub(crate) prove_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub(crate) write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_proven: 4096,
            max_unproven: 1024,
            max_per_peer: 1024,
            prove_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// The connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    table: Mutex<ConnectionTable>,
}

/// Connections that are open now, and those that were not served to their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionCounts {
    /// Open ones that have brought the key.
    pub(crate) proven: usize,
    /// Open ones that have not.
    pub(crate) unproven: usize,
    /// Accepted since the server began, refused ones included.
    pub(crate) accepted: u64,
    /// Closed at once, because their address had its most already.
    pub(crate) refused: u64,
    /// Unproven ones that were closed to make room.
    pub(crate) evicted: u64,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    counts: ConnectionCounts,
    peers: HashMap<IpAddr, PeerConnections>,
}

/// The connections of one peer.
#[derive(Debug, Default)]
struct PeerConnections {
    proven: usize,
    /// By age, each with what closes it.
    unproven: BTreeMap<u64, CancellationToken>,
}

/// The place of one connection; freed when the last holder drops it.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    peer: IpAddr,
    id: u64,
    since: Instant,
    proven: AtomicBool,
    evicted: CancellationToken,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, table: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Gives a new connection of `address` its place, as an unproven one; `None` when the address has its most already.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionPermit>> {
        let peer = peer(address);
        let mut table = self.table();
        let held = table.peers.get(&peer).map_or(0, PeerConnections::count);
        table.counts.accepted += 1;
        if held >= self.limits.max_per_peer {
            table.counts.refused += 1;
            return None;
        }
        let id = table.counts.accepted;
        let evicted = CancellationToken::new();
        table.counts.unproven += 1;
        table.peers.entry(peer).or_default().unproven.insert(id, evicted.clone());
        if table.counts.unproven > self.limits.max_unproven {
            table.evict_one();
        }
        drop(table);
        let since = Instant::now();
        let connections = Arc::clone(self);
        let proven = AtomicBool::new(false);
        Some(Arc::new(ConnectionPermit { connections, peer, id, since, proven, evicted }))
    }

    /// Counts the connections.
    pub(crate) fn counts(&self) -> ConnectionCounts {
        self.table().counts
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionTable {
    /// Closes the oldest unproven connection of the peer that has most of them.
    fn evict_one(&mut self) {
        let most = self.peers.values_mut().max_by_key(|peer| peer.unproven.len());
        if let Some((_, evicted)) = most.and_then(|peer| peer.unproven.pop_first()) {
            self.counts.unproven -= 1;
            self.counts.evicted += 1;
            evicted.cancel();
        }
    }
}

impl PeerConnections {
    fn count(&self) -> usize {
        self.proven + self.unproven.len()
    }
}

impl ConnectionPermit {
    /// Counts the connection as one that has brought the key; false when there are too many of those.
    pub(crate) fn prove(&self) -> bool {
        if self.proven.load(Ordering::Acquire) {
            return true;
        }
        let mut table = self.connections.table();
        if table.counts.proven >= self.connections.limits.max_proven {
            return false;
        }
        let Some(peer) = table.peers.get_mut(&self.peer) else { return false };
        // An evicted connection is being closed.
        if peer.unproven.remove(&self.id).is_none() {
            return self.proven.load(Ordering::Acquire);
        }
        peer.proven += 1;
        table.counts.unproven -= 1;
        table.counts.proven += 1;
        self.proven.store(true, Ordering::Release);
        true
    }

    /// Resolves when the connection has to make room: evicted, or unproven for too long.
    pub(crate) async fn overdue(&self) {
        tokio::select! {
            () = self.evicted.cancelled() => return,
            () = tokio::time::sleep_until(self.since + self.connections.limits.prove_timeout) => {}
        }
        if self.proven.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    /// How long the client may take nothing of what it is sent.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.connections.limits.write_timeout
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        let table = &mut *table;
        let Some(peer) = table.peers.get_mut(&self.peer) else { return };
        if *self.proven.get_mut() {
            peer.proven -= 1;
            table.counts.proven -= 1;
        } else if peer.unproven.remove(&self.id).is_some() {
            table.counts.unproven -= 1;
        }
        if peer.count() == 0 {
            table.peers.remove(&self.peer);
        }
    }
}

/// Returns what counts as one peer: an address, or the /64 network of an IPv6 address, which one host has to itself.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max_proven: usize, max_unproven: usize, max_per_peer: usize) -> Arc<Connections> {
        Connections::new(ConnectionLimits {
            max_proven,
            max_unproven,
            max_per_peer,
            ..ConnectionLimits::default()
        })
    }

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Mutation tried: with the whole IPv6 address as the peer, a host's third address is admitted.
    #[test]
    fn an_address_holds_a_limited_number_of_connections() {
        let connections = connections(10, 10, 2);
        let first = connections.admit(from("10.0.0.1")).unwrap();
        let _second = connections.admit(from("::ffff:10.0.0.1")).unwrap();
        assert!(first.prove());
        assert!(connections.admit(from("10.0.0.1")).is_none(), "proven ones count as well");
        assert!(connections.admit(from("10.0.0.2")).is_some());
        drop(first);
        assert!(connections.admit(from("10.0.0.1")).is_some());
        let _network = [connections.admit(from("2001:db8::1")), connections.admit(from("2001:db8::2"))];
        assert!(connections.admit(from("2001:db8::3")).is_none());
        assert!(connections.admit(from("2001:db8:0:1::3")).is_some());
        let counts = connections.counts();
        assert_eq!((counts.accepted, counts.refused), (9, 2));
    }

    /// Mutation tried: with the oldest of all evicted, the lone client's connection goes first.
    #[test]
    fn unproven_connections_make_room_at_the_cost_of_their_own_address() {
        let connections = connections(10, 4, 10);
        let lone = connections.admit(from("10.0.0.1")).unwrap();
        let many: Vec<_> = (0..6).map(|_| connections.admit(from("10.0.0.2")).unwrap()).collect();
        let evicted = many.iter().map(|permit| permit.evicted.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(evicted, [true, true, true, false, false, false]);
        assert!(!lone.evicted.is_cancelled());
        assert!(!many[0].prove(), "an evicted connection is being closed");
        assert!(lone.prove() && lone.prove());
        let counts = ConnectionCounts { proven: 1, unproven: 3, accepted: 7, refused: 0, evicted: 3 };
        assert_eq!(connections.counts(), counts);
    }

    #[test]
    fn proven_connections_have_a_limit_of_their_own_and_everything_is_given_back() {
        let connections = connections(1, 4, 10);
        let permits: Vec<_> = (0..3).map(|_| connections.admit(from("10.0.0.1")).unwrap()).collect();
        assert!(permits[0].prove());
        assert!(!permits[1].prove());
        drop(permits);
        let none = ConnectionCounts { accepted: 3, ..ConnectionCounts::default() };
        assert_eq!((connections.counts(), connections.table().peers.len()), (none, 0));
    }

    /// Mutation tried: without the check of `proven` in `overdue`, a proven connection is closed too.
    #[tokio::test(start_paused = true)]
    async fn only_an_unproven_connection_is_overdue() {
        let connections = connections(1, 4, 10);
        let overdue = async |permit: &ConnectionPermit| {
            tokio::time::timeout(Duration::from_secs(3600), permit.overdue()).await.is_ok()
        };
        let permit = connections.admit(from("10.0.0.1")).unwrap();
        assert!(overdue(&permit).await);
        let permit = connections.admit(from("10.0.0.1")).unwrap();
        permit.prove();
        assert!(!overdue(&permit).await);
    }
}

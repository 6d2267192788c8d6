//! Which clients of published UDP ports a guest may answer.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long after the client's last datagram the guest may still answer it.
const FLOW_TIMEOUT: Duration = Duration::from_secs(180);
/// More clients at once than this push out the one that has been silent longest.
const MAX_FLOWS: usize = 1024;

/// A conversation between a client, who is the gateway where it is on the host, and a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The client.
    pub peer: Ipv4Addr,
    /// The client's port.
    pub peer_port: u16,
    /// The published port.
    pub guest_port: u16,
}

/// The flows that clients have begun; bounded in number and in time.
#[derive(Debug, Default)]
pub struct Solicited {
    last_heard: HashMap<Flow, Instant>,
}

impl Solicited {
    /// Notes a datagram from a client.
    pub fn heard(&mut self, flow: Flow, now: Instant) {
        if self.last_heard.len() >= MAX_FLOWS && !self.last_heard.contains_key(&flow) {
            self.last_heard.retain(|_, heard| is_fresh(*heard, now));
            if self.last_heard.len() >= MAX_FLOWS {
                let oldest = self.last_heard.iter().min_by_key(|(_, heard)| **heard).map(|(flow, _)| *flow);
                oldest.map(|flow| self.last_heard.remove(&flow));
            }
        }
        self.last_heard.insert(flow, now);
    }

    /// Whether the guest may send on `flow` now.
    pub fn allows(&self, flow: Flow, now: Instant) -> bool {
        self.last_heard.get(&flow).is_some_and(|heard| is_fresh(*heard, now))
    }
}

fn is_fresh(heard: Instant, now: Instant) -> bool {
    now.saturating_duration_since(heard) <= FLOW_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(peer_port: u16) -> Flow {
        Flow { peer: Ipv4Addr::new(10, 0, 2, 2), peer_port, guest_port: 53 }
    }

    #[test]
    fn only_what_was_heard_is_allowed_and_only_for_a_while() {
        let (mut table, start) = (Solicited::default(), Instant::now());
        table.heard(flow(1), start);
        assert!(table.allows(flow(1), start + FLOW_TIMEOUT));
        assert!(!table.allows(flow(2), start));
        assert!(!table.allows(Flow { guest_port: 54, ..flow(1) }, start));
        assert!(!table.allows(flow(1), start + FLOW_TIMEOUT + Duration::from_millis(1)));
        table.heard(flow(1), start + FLOW_TIMEOUT);
        assert!(table.allows(flow(1), start + FLOW_TIMEOUT * 2));
    }

    #[test]
    fn a_flood_of_clients_pushes_out_the_most_silent_and_grows_no_further() {
        let (mut table, start) = (Solicited::default(), Instant::now());
        for port in 0..5000 {
            table.heard(flow(port), start + Duration::from_millis(port.into()));
            table.heard(flow(0), start + Duration::from_millis(port.into()));
        }
        let now = start + Duration::from_secs(5);
        assert_eq!(table.last_heard.len(), MAX_FLOWS);
        assert!(table.allows(flow(0), now) && table.allows(flow(4999), now) && !table.allows(flow(1), now));
    }
}

//! The other boxes of a box's networks: how their shims find each other, and which packets pass between them.
//!
//! ```text
//! guest ── QEMU ── shim ═════ a pair of sockets for each two boxes ═════ shim ── QEMU ── guest
//!                   ▲                                                     ▲
//!                steward ◀── networks/<name>/members/<id>.sock ──────── a box that starts
//! ```
//!
//! # How boxes meet
//! There is no daemon. A box that starts binds its *mailbox*, a socket in the directory of its network, and sends an offer to
//! every mailbox that it finds there: who it is, and one end of a new pair of sockets, the *channel* of the two boxes
//! ([`meeting`]). The receiver's steward passes that on to its shim. Of two boxes that start at once at least one finds the
//! other; where both do, there are two channels, and both are listened to. A box has gone when its channel is closed, which
//! the kernel does however the box ended.
//!
//! # Who is trusted
//! Only processes of the home's user come to a mailbox, and all of that happens before a guest runs, or in stewards, which hear
//! nothing of guests. A shim, which a guest might take over, has its ends of channels and can neither make nor receive others:
//! whoever takes in a packet knows its sender by the channel. Channels carry IPv4 packets without Ethernet headers, so that no
//! Ethernet address can be forged, and the receiver's shim drops whatever is not from the sender's address to its own
//! ([`packet`]). It answers its own guest's ARP requests and questions for names ([`names`]); neither leaves the box.
//!
//! A box of several networks has a mailbox, an address and channels in each, even to a box that it shares two with. A packet
//! leaves by the channel of the network that its destination lies in, and only with the box's address there, so that nothing
//! goes from one network to another by itself. All its names are asked for in all its networks.
//!
//! # Limits
//! A packet for a channel whose buffer in the kernel is full is lost, and counted; nothing waits for another box. A receiver
//! takes no packet in before its guest has taken earlier ones, so that what waits for a guest lies in the buffers of its
//! senders' channels, and counts as their memory.

mod exchange;
mod meeting;
mod names;
mod packet;
mod peers;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use boxlite_types::{MAX_MEMBERS, Result, Subnet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::MacAddr;

pub use exchange::Exchange;
pub(super) use exchange::Taken;
pub use meeting::Mailbox;

/// The longest packet: an Ethernet frame's payload.
const MAX_PACKET: usize = 1500;

/// A box as the others of its network know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A network that a box is a member of, as its shim is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNetwork {
    /// Its name.
    pub name: String,
    /// `networks/<name>/members/`, absolute.
    pub directory: PathBuf,
    /// Its addresses.
    pub subnet: Subnet,
    /// Whether it leads nowhere else. A box whose networks are all so has no user-mode stack.
    pub internal: bool,
    /// The box itself.
    pub own: Member,
}

/// Open files of a shim besides channels.
const OTHER_FILES: u64 = 512;

/// Lets this process have as many files open as full networks have channels, of which a box may have two each, as far as the host
/// allows. The usual limit of 1,024 is enough for one network.
fn make_room(networks: usize) {
    let wanted = OTHER_FILES + (networks * MAX_MEMBERS * 2) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = wanted.min(maximum.unwrap_or(u64::MAX));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, "the box may miss others of its networks, for which it cannot have enough files open");
    }
}

/// Makes the box with the Ethernet address `mac` a member of its networks, in which others find it from here on; `has_stack` says
/// whether it reaches anything else.
///
/// The mailboxes are the steward's. The caller holds the box's lock, so that no other process has them.
///
/// # Errors
/// `Io` when a mailbox cannot be made, `NotFound` where a network has been removed.
pub fn join(networks: &[MemberNetwork], mac: MacAddr, has_stack: bool) -> Result<(Exchange, Vec<Mailbox>)> {
    make_room(networks.len());
    let mut exchange = Exchange::new(mac, has_stack);
    let mut mailboxes = Vec::new();
    for network in networks {
        let (mailbox, met, arrivals) = meeting::enter(network)?;
        mailboxes.push(mailbox);
        exchange.add(network.clone(), met, arrivals);
    }
    Ok((exchange, mailboxes))
}

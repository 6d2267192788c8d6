//! The other boxes of a box's network: how their shims find each other, and which packets pass between them.
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
//! # Limits
//! A packet for a channel whose buffer in the kernel is full is lost, and counted; nothing waits for another box. A receiver
//! takes no packet in before its guest has taken earlier ones, so that what waits for a guest lies in the buffers of its
//! senders' channels, and counts as their memory.

mod exchange;
mod meeting;
mod names;
mod packet;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use boxlite_types::{Result, Subnet};
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

/// The network that a box is a member of, as its shim is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNetwork {
    /// Its name.
    pub name: String,
    /// `networks/<name>/members/`, absolute.
    pub directory: PathBuf,
    /// Its addresses.
    pub subnet: Subnet,
    /// Whether the box reaches nothing else: it has no user-mode stack then.
    pub internal: bool,
    /// The box itself.
    pub own: Member,
}

/// Makes the box with the Ethernet address `mac` a member of its network, in which others find it from here on.
///
/// The mailbox is the steward's. The caller holds the box's lock, so that no other process has it.
///
/// # Errors
/// `Io` when the mailbox cannot be made, `NotFound` where the network has been removed.
pub fn join(network: &MemberNetwork, mac: MacAddr) -> Result<(Exchange, Mailbox)> {
    let (mailbox, met, arrivals) = meeting::enter(network)?;
    Ok((Exchange::new(network.clone(), mac, met, arrivals), mailbox))
}

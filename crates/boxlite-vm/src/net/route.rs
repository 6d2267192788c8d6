//! Address blocks, and which of them a box may not reach.

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 address block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Net {
    /// The block of `prefix` leading bits of `address`; a prefix above 32 is taken as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// The block of one address.
    pub const fn host(address: Ipv4Addr) -> Self {
        Self::new(address, 32)
    }

    /// Its first address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Its leading bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in the block.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

const fn mask(prefix: u8) -> u32 {
    match 32u32.checked_sub(prefix as u32) {
        Some(32) | None => 0,
        Some(low) => u32::MAX << low,
    }
}

/// Blocks that never belong to another machine which a box could mean: the host, its links, groups and the future.
///
/// - `0.0.0.0/8`: Linux connects `0.0.0.0` to the local host.
/// - `127.0.0.0/8`: the host's loopback.
/// - `169.254.0.0/16`: link-local, where clouds hand out the host's credentials.
/// - `224.0.0.0/4` and `240.0.0.0/4`: multicast, reserved and the limited broadcast, which slirp maps to loopback.
const NEVER: [Ipv4Net; 5] = [
    Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Instance metadata and agent services of clouds that keep them outside link-local: Alibaba, Azure and Oracle.
pub const METADATA_HOSTS: [Ipv4Net; 3] = [
    Ipv4Net::host(Ipv4Addr::new(100, 100, 100, 200)),
    Ipv4Net::host(Ipv4Addr::new(168, 63, 129, 16)),
    Ipv4Net::host(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Further blocks of networks that are somebody's own, and of protocols (RFC 6890).
const PRIVATE: [Ipv4Net; 6] = [
    Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new(Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// Whether `address` has no place in the public network, or is of a cloud's metadata service.
pub(super) fn is_private(address: Ipv4Addr) -> bool {
    never_reachable(address) || PRIVATE.iter().chain(&METADATA_HOSTS).any(|block| block.contains(address))
}

/// The blocks that no box reaches anything of.
pub fn unreachable_blocks() -> impl Iterator<Item = Ipv4Net> {
    NEVER.into_iter().chain(METADATA_HOSTS)
}

/// Whether no box reaches anything of the block of `prefix` bits at `address`.
pub fn is_unreachable(address: Ipv4Addr, prefix: u8) -> bool {
    let block = Ipv4Net::new(address, prefix);
    NEVER
        .iter()
        .chain(&METADATA_HOSTS)
        .any(|never| never.prefix <= block.prefix && never.contains(block.address))
}

/// Whether no policy lets a box send to `address`.
pub(super) fn never_reachable(address: Ipv4Addr) -> bool {
    NEVER.iter().any(|block| block.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_first_and_last_address_and_no_neighbour() {
        let block = Ipv4Net::new(Ipv4Addr::new(10, 0, 2, 77), 24);
        assert_eq!(block.to_string(), "10.0.2.0/24");
        for (address, inside) in
            [([10, 0, 1, 255], false), ([10, 0, 2, 0], true), ([10, 0, 2, 255], true), ([10, 0, 3, 0], false)]
        {
            assert_eq!(block.contains(Ipv4Addr::from(address)), inside, "{address:?}");
        }
    }

    #[test]
    fn the_extreme_prefixes_hold_everything_and_one() {
        let all = Ipv4Net::new(Ipv4Addr::new(9, 9, 9, 9), 0);
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.contains(Ipv4Addr::UNSPECIFIED));
        let one = Ipv4Net::host(Ipv4Addr::new(9, 9, 9, 9));
        assert!(one.contains(Ipv4Addr::new(9, 9, 9, 9)) && !one.contains(Ipv4Addr::new(9, 9, 9, 8)));
    }

    // Mutations tried: each of the blocks left out, and `<=` as `>=`.
    #[test]
    fn private_and_unreachable_blocks_are_told_apart() {
        for (address, private) in [
            ([10, 255, 0, 1], true),
            ([11, 0, 0, 0], false),
            ([100, 64, 0, 1], true),
            ([100, 128, 0, 0], false),
            ([172, 31, 255, 255], true),
            ([172, 32, 0, 0], false),
            ([192, 0, 0, 8], true),
            ([192, 168, 0, 1], true),
            ([198, 19, 255, 255], true),
            ([168, 63, 129, 16], true),
            ([127, 0, 0, 1], true),
            ([1, 1, 1, 1], false),
        ] {
            assert_eq!(is_private(Ipv4Addr::from(address)), private, "{address:?}");
        }
        for (address, prefix, unreachable) in [
            ([127, 0, 0, 1], 32, true),
            ([127, 0, 0, 0], 8, true),
            ([126, 0, 0, 0], 7, false),
            ([169, 254, 169, 254], 32, true),
            ([168, 63, 129, 16], 32, true),
            ([0, 0, 0, 0], 0, false),
            ([10, 0, 0, 0], 8, false),
        ] {
            assert_eq!(is_unreachable(Ipv4Addr::from(address), prefix), unreachable, "{address:?}/{prefix}");
        }
    }

    #[test]
    fn the_edges_of_the_never_reachable_blocks() {
        for (address, never) in [
            ([0, 0, 0, 0], true),
            ([0, 255, 255, 255], true),
            ([1, 0, 0, 0], false),
            ([126, 255, 255, 255], false),
            ([127, 0, 0, 0], true),
            ([127, 255, 255, 255], true),
            ([128, 0, 0, 0], false),
            ([169, 253, 255, 255], false),
            ([169, 254, 169, 254], true),
            ([169, 255, 0, 0], false),
            ([223, 255, 255, 255], false),
            ([224, 0, 0, 0], true),
            ([255, 255, 255, 255], true),
        ] {
            assert_eq!(never_reachable(Ipv4Addr::from(address)), never, "{address:?}");
        }
    }
}

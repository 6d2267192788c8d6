//! The box's Ethernet address.

use std::fmt;

use sha2::{Digest, Sha256};

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address of the box `id`: the same at every start, unicast and locally administered.
    pub fn of_box(id: &str) -> Self {
        let digest = Sha256::digest(id.as_bytes());
        let mut octets = [0; 6];
        octets.copy_from_slice(&digest[..6]);
        octets[0] = octets[0] & 0xfc | 0x02;
        Self(octets)
    }

    /// The six octets in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stable_unicast_local_and_differs_between_boxes() {
        let seen: std::collections::HashSet<_> =
            (0..1000).map(|n| MacAddr::of_box(&format!("box{n}"))).collect();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|mac| mac.octets()[0] & 3 == 2));
        assert_eq!(MacAddr::of_box("x").to_string(), MacAddr::of_box("x").to_string());
        assert_eq!(MacAddr([2, 0, 10, 0xff, 1, 9]).to_string(), "02:00:0a:ff:01:09");
    }
}

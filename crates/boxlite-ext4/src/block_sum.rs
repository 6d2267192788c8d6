//! The sum of a file's blocks.

use std::fmt;

use twox_hash::XxHash3_128;

/// Sums up blocks, so that whoever keeps them can tell whether they are still the same: XXH3 of 128 bits. It finds damage and
/// stands up to no attacker.
///
/// It is here because this crate is optimised in builds for development, too, where all blocks of every image are summed up.
pub struct BlockSum(Box<XxHash3_128>);

impl BlockSum {
    /// A sum of nothing.
    pub fn new() -> Self {
        Self(Box::default())
    }

    /// Adds the bytes that follow.
    #[inline(never)]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The sum of all bytes, as `xxhsum -H2` prints it.
    pub fn finish(&self) -> [u8; 16] {
        self.0.finish_128().to_be_bytes()
    }
}

impl Default for BlockSum {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BlockSum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BlockSum")
    }
}

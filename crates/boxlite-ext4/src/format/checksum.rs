//! CRC-32C as ext4 uses it: no final inversion, and seeded.

/// A running checksum; every structure starts from the file system's seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// From all ones: the superblock's own checksum, and the seed over the UUID.
    pub(crate) fn start() -> Self {
        Self(!0)
    }

    #[must_use]
    pub(crate) fn over(self, bytes: &[u8]) -> Self {
        // The crate inverts before and after; ext4 does neither.
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The seed of everything that belongs to one inode; generations are all 0.
    #[must_use]
    pub(crate) fn of_inode(self, number: u32) -> Self {
        self.over(&number.to_le_bytes()).over(&0_u32.to_le_bytes())
    }

    pub(crate) fn value(self) -> u32 {
        self.0
    }
}

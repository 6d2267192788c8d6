//! Recognises a disk image by its superblock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::superblock::{
    BLOCKS_HIGH_AT, BLOCKS_LOW_AT, CHECKSUM_AT, DELTA_AT, INCOMPATIBLE, INCOMPATIBLE_AT, LOG_BLOCK_SIZE_AT,
    MAGIC, MAGIC_AT, OFFSET, READ_ONLY, READ_ONLY_AT, SUPERBLOCK, UUID_AT,
};
use crate::format::{BLOCK, Identifiers};
use crate::{BlockSource, IdentityError};

/// Identity of the file system in a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesystemIdentity {
    /// UUID of the file system; compare it with [`expected_uuid`].
    pub uuid: [u8; 16],
    /// Blocks of the file system.
    pub blocks: u64,
    /// Bytes per block.
    pub block_size: u32,
    /// Identity of the topmost delta that was applied; `None` in a whole image.
    pub delta: Option<[u8; 32]>,
}

/// The UUID that this builder gives an image with this [`identity`](crate::BuildOptions::identity).
pub fn expected_uuid(identity: &[u8; 32]) -> [u8; 16] {
    Identifiers::derive(identity).uuid
}

/// Reads the identity of an image from its superblock: 1 KiB at a fixed place, whatever the file says.
///
/// # Errors
///
/// [`IdentityError::Foreign`] if the superblock is damaged or not of this builder's making,
/// [`IdentityError::Truncated`] if the file is shorter than the file system in it.
pub fn read_identity(file: &File) -> Result<FilesystemIdentity, IdentityError> {
    let has = file.metadata()?.len();
    let mut block = [0; SUPERBLOCK];
    match file.read_exact_at(&mut block, OFFSET) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(IdentityError::Truncated { has, needs: OFFSET + SUPERBLOCK as u64 });
        }
        Err(error) => return Err(error.into()),
    }
    let identity = parse(&block).map_err(|reason| IdentityError::Foreign { reason })?;
    let needs = identity.blocks.saturating_mul(u64::from(identity.block_size));
    if has < needs {
        return Err(IdentityError::Truncated { has, needs });
    }
    Ok(identity)
}

/// Reads the identity of the file system that a chain of deltas makes, from its first block.
///
/// [`FilesystemIdentity::delta`] is the [`identity`](crate::DeltaOptions::identity) of the topmost delta, the UUID that of
/// the whole image at the bottom.
///
/// # Errors
///
/// [`IdentityError::Read`] if the block cannot be read, [`IdentityError::Foreign`] if the superblock in it is damaged or
/// not of this builder's making.
pub fn read_chain_identity(source: &dyn BlockSource) -> Result<FilesystemIdentity, IdentityError> {
    let mut first = [0; BLOCK];
    source.read_blocks(0, &mut first)?;
    let mut block = [0; SUPERBLOCK];
    block.copy_from_slice(&first[OFFSET as usize..OFFSET as usize + SUPERBLOCK]);
    parse(&block).map_err(|reason| IdentityError::Foreign { reason })
}

fn parse(block: &[u8; SUPERBLOCK]) -> Result<FilesystemIdentity, &'static str> {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if block[MAGIC_AT..MAGIC_AT + 2] != MAGIC.to_le_bytes() {
        return Err("no ext4 magic");
    }
    let checksum = !crc32c::crc32c(&block[..CHECKSUM_AT]);
    if word(CHECKSUM_AT) != checksum {
        return Err("the superblock's checksum is wrong");
    }
    // The kernel may add features to an image that was ever mounted read-write; those written here must be there.
    if word(INCOMPATIBLE_AT) & INCOMPATIBLE != INCOMPATIBLE || word(READ_ONLY_AT) & READ_ONLY != READ_ONLY {
        return Err("other features than this builder writes");
    }
    let block_size = 1024_u32.checked_shl(word(LOG_BLOCK_SIZE_AT)).unwrap_or(0);
    if block_size as usize != BLOCK {
        return Err("another block size than this builder writes");
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[UUID_AT..UUID_AT + 16]);
    let blocks = u64::from(word(BLOCKS_HIGH_AT)) << 32 | u64::from(word(BLOCKS_LOW_AT));
    let mut delta = [0; 32];
    delta.copy_from_slice(&block[DELTA_AT..DELTA_AT + 32]);
    Ok(FilesystemIdentity { uuid, blocks, block_size, delta: (delta != [0; 32]).then_some(delta) })
}

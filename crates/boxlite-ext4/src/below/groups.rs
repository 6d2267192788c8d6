//! Free blocks and inodes of the file system below: found by its bitmaps, which are read where they are needed.
//!
//! New blocks come from behind the last one in use, so that files are contiguous and blocks that a delta writes lie
//! together; once the end is reached, from the first free one on. Inodes get the lowest free number.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{FilesystemBelow, descriptor_place};
use crate::error::BelowError;
use crate::format::{
    BLOCK, BLOCKS_UNINITIALISED, DESCRIPTOR, GROUP_BLOCKS, GroupDescriptor, INODES_UNINITIALISED,
    first_clear, is_set, mark,
};
use crate::writer::Allocate;

/// Blocks to which the first new one is aligned: a cluster of the delta is not shared with blocks below then.
const ALIGNED: u64 = 16;

/// The block groups, with the changes made to them.
#[derive(Debug)]
pub(crate) struct BelowGroups<'b> {
    below: &'b FilesystemBelow<'b>,
    /// Groups that were looked at.
    groups: BTreeMap<u64, GroupState>,
    /// First block behind all that are in use below.
    frontier: u64,
    cursor: u64,
    /// The cursor has reached the end: it is at or before the first free block from now on.
    wrapped: bool,
    /// Group with the lowest free inode, at least.
    inode_group: u64,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u32,
}

/// A group; its bitmaps are read when they are needed.
#[derive(Debug)]
struct GroupState {
    descriptor: GroupDescriptor,
    blocks: Option<Vec<u8>>,
    inodes: Option<Vec<u8>>,
    blocks_changed: bool,
    inodes_changed: bool,
}

/// One of the two bitmaps of a group.
#[derive(Debug, Clone, Copy)]
enum Bitmap {
    Blocks,
    Inodes,
}

impl<'b> BelowGroups<'b> {
    pub(crate) fn new(below: &'b FilesystemBelow<'b>) -> Result<Self, BelowError> {
        let mut groups = Self {
            below,
            groups: BTreeMap::new(),
            frontier: 0,
            cursor: 0,
            wrapped: false,
            inode_group: 0,
            free_blocks: below.summary.free_blocks,
            free_inodes: below.summary.free_inodes,
        };
        groups.frontier = groups.find_frontier()?;
        // At least one block stays free between, so that no extent has blocks on both sides of the frontier.
        groups.cursor = (groups.frontier + 1).next_multiple_of(ALIGNED);
        Ok(groups)
    }

    /// The block behind the last one in use that does not belong to a group's head.
    fn find_frontier(&mut self) -> Result<u64, BelowError> {
        let geometry = &self.below.geometry;
        for group in (0..geometry.groups).rev() {
            let size = geometry.group_blocks(group);
            let free = self.below.descriptor(group)?.free_blocks;
            if u64::from(free) < size - geometry.head(group) {
                let bitmap = self.bitmap(group, Bitmap::Blocks)?;
                let last = (0..size).rev().find(|&bit| is_set(bitmap, bit)).unwrap_or(0);
                return Ok(group * GROUP_BLOCKS + last + 1);
            }
        }
        Err(BelowError::damaged("the group descriptors", "no block is in use"))
    }

    fn group(&mut self, group: u64) -> Result<&mut GroupState, BelowError> {
        match self.groups.entry(group) {
            Entry::Occupied(state) => Ok(state.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(GroupState {
                descriptor: self.below.descriptor(group)?,
                blocks: None,
                inodes: None,
                blocks_changed: false,
                inodes_changed: false,
            })),
        }
    }

    /// Reads a bitmap, or makes up one that was never written.
    fn bitmap(&mut self, group: u64, which: Bitmap) -> Result<&mut Vec<u8>, BelowError> {
        let below = self.below;
        let state = self.group(group)?;
        let descriptor = &state.descriptor;
        let per_group = u64::from(below.summary.inodes_per_group);
        let (slot, unwritten, used, size, place, checksum, covered) = match which {
            Bitmap::Blocks => (
                &mut state.blocks,
                descriptor.flags & BLOCKS_UNINITIALISED != 0,
                below.geometry.head(group),
                below.geometry.group_blocks(group),
                descriptor.block_bitmap,
                descriptor.block_checksum,
                BLOCK,
            ),
            Bitmap::Inodes => (
                &mut state.inodes,
                descriptor.flags & INODES_UNINITIALISED != 0,
                0,
                per_group,
                descriptor.inode_bitmap,
                descriptor.inode_checksum,
                per_group as usize / 8,
            ),
        };
        let bitmap = match slot.take() {
            Some(bitmap) => bitmap,
            None if unwritten => {
                let mut bitmap = vec![0; BLOCK];
                mark(&mut bitmap, 0..used, true);
                mark(&mut bitmap, size..8 * BLOCK as u64, true);
                bitmap
            }
            None => {
                let mut bitmap = vec![0; BLOCK];
                below.read(place, &mut bitmap)?;
                if below.ids.checksum_seed().over(&bitmap[..covered]).value() != checksum {
                    let place = format!("the bitmap in block {place}");
                    return Err(BelowError::damaged(place, "its checksum is wrong"));
                }
                bitmap
            }
        };
        Ok(slot.insert(bitmap))
    }

    /// Takes the lowest free inode; `None` if there is none.
    pub(crate) fn take_inode(&mut self, directory: bool) -> Result<Option<u32>, BelowError> {
        let per_group = self.below.summary.inodes_per_group;
        while self.inode_group < self.below.geometry.groups {
            let group = self.inode_group;
            if self.group(group)?.descriptor.free_inodes > 0 {
                let bitmap = self.bitmap(group, Bitmap::Inodes)?;
                let bit = first_clear(bitmap, 0, per_group.into());
                let Some(bit) = bit else {
                    let place = format!("the descriptor of group {group}");
                    return Err(BelowError::damaged(
                        place,
                        "it counts free inodes that its bitmap does not have",
                    ));
                };
                mark(bitmap, bit..bit + 1, true);
                let state = self.group(group)?;
                state.inodes_changed = true;
                state.descriptor.free_inodes -= 1;
                state.descriptor.directories += u32::from(directory);
                self.free_inodes -= 1;
                return Ok(Some(group as u32 * per_group + bit as u32 + 1));
            }
            self.inode_group += 1;
        }
        Ok(None)
    }

    /// Makes an inode in use free.
    pub(crate) fn free_inode(&mut self, number: u32, directory: bool) -> Result<(), BelowError> {
        let per_group = self.below.summary.inodes_per_group;
        let (group, bit) = (u64::from((number - 1) / per_group), u64::from((number - 1) % per_group));
        let bitmap = self.bitmap(group, Bitmap::Inodes)?;
        if !is_set(bitmap, bit) {
            return Err(BelowError::damaged(format!("inode {number}"), "it is named, but marked as free"));
        }
        mark(bitmap, bit..bit + 1, false);
        let state = self.group(group)?;
        state.inodes_changed = true;
        state.descriptor.free_inodes += 1;
        state.descriptor.directories = state.descriptor.directories.saturating_sub(directory.into());
        self.free_inodes += 1;
        self.inode_group = self.inode_group.min(group);
        Ok(())
    }

    /// The blocks of metadata that describe the changes: bitmaps, then descriptors.
    pub(crate) fn changed_blocks(&mut self) -> Result<Vec<(u64, Vec<u8>)>, BelowError> {
        let seed = self.below.ids.checksum_seed();
        let per_group = self.below.summary.inodes_per_group;
        let mut changed = Vec::new();
        let mut descriptors: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (&group, state) in &mut self.groups {
            let descriptor = &mut state.descriptor;
            if let Some(bitmap) = state.blocks.take_if(|_| state.blocks_changed) {
                descriptor.flags &= !BLOCKS_UNINITIALISED;
                descriptor.block_checksum = seed.over(&bitmap).value();
                changed.push((descriptor.block_bitmap, bitmap));
            }
            if let Some(bitmap) = state.inodes.take_if(|_| state.inodes_changed) {
                let used = (0..u64::from(per_group)).rev().find(|&bit| is_set(&bitmap, bit));
                descriptor.unused_inodes = per_group - used.map_or(0, |bit| bit as u32 + 1);
                descriptor.flags &= !INODES_UNINITIALISED;
                descriptor.inode_checksum = seed.over(&bitmap[..per_group as usize / 8]).value();
                changed.push((descriptor.inode_bitmap, bitmap));
            }
            if state.blocks_changed || state.inodes_changed {
                let (block, at) = descriptor_place(group);
                let bytes = match descriptors.entry(block) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(self.below.block(block)?.to_vec()),
                };
                bytes[at..at + DESCRIPTOR].copy_from_slice(&descriptor.bytes(group, seed));
            }
        }
        changed.extend(descriptors);
        Ok(changed)
    }
}

impl Allocate for BelowGroups<'_> {
    fn take(&mut self, want: u64) -> Result<Option<(u64, u64)>, BelowError> {
        loop {
            if self.cursor >= self.below.geometry.blocks {
                if self.wrapped {
                    return Ok(None);
                }
                (self.wrapped, self.cursor) = (true, 0);
            }
            let group = self.cursor / GROUP_BLOCKS;
            let (first, size) = (group * GROUP_BLOCKS, self.below.geometry.group_blocks(group));
            let from = self.cursor - first;
            let free = if self.group(group)?.descriptor.free_blocks == 0 {
                None
            } else {
                first_clear(self.bitmap(group, Bitmap::Blocks)?, from, size)
            };
            let Some(start) = free else {
                self.cursor = first + GROUP_BLOCKS;
                continue;
            };
            let bitmap = self.bitmap(group, Bitmap::Blocks)?;
            let most = size.min(start.saturating_add(want));
            let end = (start..most).find(|&bit| is_set(bitmap, bit)).unwrap_or(most);
            mark(bitmap, start..end, true);
            let state = self.group(group)?;
            state.blocks_changed = true;
            let count = end - start;
            state.descriptor.free_blocks =
                state.descriptor.free_blocks.checked_sub(count as u32).ok_or_else(|| {
                    let place = format!("the descriptor of group {group}");
                    BelowError::damaged(place, "it counts fewer free blocks than its bitmap has")
                })?;
            self.free_blocks = self.free_blocks.saturating_sub(count);
            self.cursor = first + end;
            return Ok(Some((first + start, count)));
        }
    }

    fn give_back(&mut self, start: u64, length: u64) -> Result<(), BelowError> {
        let end = start + length;
        let mut at = start;
        while at < end {
            let group = at / GROUP_BLOCKS;
            let first = group * GROUP_BLOCKS;
            let stop = end.min(first + GROUP_BLOCKS);
            let bitmap = self.bitmap(group, Bitmap::Blocks)?;
            if !(at - first..stop - first).all(|bit| is_set(bitmap, bit)) {
                return Err(BelowError::damaged(format!("block {at}"), "it is in use, but marked as free"));
            }
            mark(bitmap, at - first..stop - first, false);
            let state = self.group(group)?;
            state.blocks_changed = true;
            state.descriptor.free_blocks += (stop - at) as u32;
            self.free_blocks += stop - at;
            at = stop;
        }
        if self.wrapped {
            self.cursor = self.cursor.min(start);
        }
        Ok(())
    }

    fn lies_below(&self, block: u64) -> bool {
        !self.wrapped && block < self.frontier
    }
}

//! Writes what a tree changes on the file system that it stands on: records, directories, bitmaps, superblock.

mod directory;
mod finish;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use finish::finish;

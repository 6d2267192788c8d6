//! The metadata of a whole image.
//!
//! File contents are laid out first, in the order in which they arrive; once the tree is complete, the inode tables,
//! directories and bitmaps follow behind them, which `flex_bg` allows. Tables and bitmaps of groups that hold nothing are
//! marked so and stay holes in the file.

mod finish;
mod groups;
mod reserved;

pub(crate) use finish::finish;

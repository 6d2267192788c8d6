//! The only module that creates, renames and removes durable files.
//!
//! A durable file is written under `images/tmp`, fsynced, renamed into place, and its directory is fsynced
//! ([`Staged::publish`]). The writer of a staged file holds an exclusive `flock` on it, so that a sweep can
//! tell an unfinished file whose owner is alive from one whose owner is gone ([`sweep_staged`]). Large files
//! leave by way of a trash name in the same directory ([`discard`]), so that no lock is held across a slow
//! unlink. Every step names a [`fault::point`], where tests stop or kill the process.

// The raw calls that clippy.toml bans everywhere else are this module's job.
#![allow(clippy::disallowed_methods)]

mod directory;
pub mod fault;
mod link;
mod lock;
mod read;
mod remove;
mod slot;
mod space;
mod stage;
mod stage_dir;
mod volatile;

pub use directory::{begin_writeback, create_dir, ensure_dir, restrict, sync_dir, sync_file};
pub use link::link;
pub use lock::{FileId, Lock};
pub use read::read_text;
pub use remove::{
    Trash, delete_all, discard, discard_dir, discard_locked, remove_file, remove_trash_dir, unlink_locked,
};
pub use slot::{SLOT_LEN, Slot};
pub use space::{allocated, allocated_of, free_space, free_space_of};
pub use stage::{Staged, SweptFile, ensure_file, sweep_staged, write_atomically};
pub use stage_dir::{StagedDir, is_staged_dir, sweep_staged_dir};
pub use volatile::{open_log, remove_volatile, rotate_log};

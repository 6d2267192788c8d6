//! Garbage collection: roots → mark → plan → sweep → report.
//!
//! **Roots** are the box records, every overlay under `boxes/`, every base that is not itself garbage, and
//! leases (shared `flock`s on the files). **Mark** follows what they reach by file identity. **Plan** decides,
//! purely, what is neither reached nor young. **Sweep** takes a non-blocking exclusive lock on each candidate,
//! marks *again* with those locks held, and removes only what is still unneeded and still past its grace: by a
//! rename out of sight, after which the lock is let go, and then the unlink. A start leases an image before it
//! relies on it and checks after locking that the path still names it (`disk::lease`), so either the sweep finds
//! the lease or the overlay, or the start finds the image gone and makes it anew.
//!
//! Unknown means keep: when a directory, a chain or the database cannot be read, no disk image, base or box
//! directory is removed in this pass, and the report names what was unreadable.
//!
//! A pass writes nothing but its removals, so it works with 0 bytes and 0 inodes free. `--dry-run` is the same
//! code up to the rename.

mod automatic;
mod blobs;
mod boot_files;
mod catalog;
mod census;
mod mark;
mod pass;
mod plan;
mod stage;
mod tally;
#[cfg(test)]
mod tests;
mod unfinished;
mod usage;

pub use automatic::{Automatic, note_release};
pub use catalog::{BoxPin, Catalog, ImagePin};
pub use pass::collect;
pub use tally::Tally;
pub use usage::usage;

//! Admission: nothing that consumes disk space, and no box that takes memory, begins before it was asked here.
//!
//! [`classify`] and [`MemoryBudget::classify`] are the pure decisions. [`StartAdmission`] and [`MemoryAdmission`] are the
//! first stage of a box's start and yield [`Admission`] and [`MemoryPromise`], without which the later stages cannot be
//! called. [`SpaceGuard`] does the same for what streams:
//! pulls, builds, copies. All hold a [`Claim`] on what they are about to use, so that concurrent operations are
//! never admitted against the same free bytes.

mod claim;
mod classify;
mod host_memory;
mod memory;
mod own_group;
mod process_bounds;
mod start;
mod stream;

#[cfg(test)]
mod tests;

pub use claim::{Claim, Claims, LiveClaim};
pub use classify::{Missing, Reclaimable, Thresholds, classify, classify_inodes, judge, missing, outlook};
pub use memory::{MemoryAdmission, MemoryBudget, MemoryHolder, MemoryNeed, MemoryPromise, MemoryVerdict};
pub use process_bounds::{ProcessBounds, online_processors};
pub use start::{Admission, Collectable, Collected, Collector, Goal, Notice, StartAdmission};
pub use stream::SpaceGuard;

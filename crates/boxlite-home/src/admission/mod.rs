//! Admission: nothing that consumes disk space begins before it was asked here.
//!
//! [`classify`] is the pure decision. [`DiskSpaceTask`] is the first stage of a box's start and yields
//! [`Admitted`], without which the later stages cannot be called. [`SpaceGuard`] does the same for what streams:
//! pulls, builds, copies. Both reserve what they are about to use by a [`Claim`], so that concurrent operations are
//! never admitted against the same free bytes.

mod claim;
mod classify;
mod stream;
mod task;

#[cfg(test)]
mod tests;

pub use claim::{Claim, Claims, LiveClaim};
pub use classify::{Missing, Reclaimable, Thresholds, classify, classify_inodes, judge, missing, outlook};
pub use stream::SpaceGuard;
pub use task::{Admitted, Collected, Collector, DiskSpaceTask, Goal, Notice};

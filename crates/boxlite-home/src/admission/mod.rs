//! Admission: nothing that consumes disk space begins before it was asked here.
//!
//! [`classify`] is the pure decision. [`StartAdmission`] is the first stage of a box's start and yields
//! [`Admission`], without which the later stages cannot be called. [`SpaceGuard`] does the same for what streams:
//! pulls, builds, copies. Both hold a [`Claim`] on what they are about to use, so that concurrent operations are
//! never admitted against the same free bytes.

mod claim;
mod classify;
mod start;
mod stream;

#[cfg(test)]
mod tests;

pub use claim::{Claim, Claims, LiveClaim};
pub use classify::{Missing, Reclaimable, Thresholds, classify, classify_inodes, judge, missing, outlook};
pub use start::{Admission, Collectable, Collected, Collector, Goal, Notice, StartAdmission};
pub use stream::SpaceGuard;

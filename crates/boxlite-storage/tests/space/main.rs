//! The host's disk is safe: proofs about admission and gc against real files, processes and filesystems.

mod catalog;
mod chain_model;
mod child;
mod crash;
mod interleave;
mod model;
mod place;
mod pressure;
mod race;
mod snapshot_model;

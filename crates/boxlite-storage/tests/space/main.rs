//! The host's disk is safe: proofs about admission and gc against real files, processes and filesystems.

mod child;
mod crash;
mod differential;
mod interleave;
mod model;
mod place;
mod pressure;
mod race;

//! The host's disk is safe: proofs about admission and gc against real files, processes and filesystems.

mod model;

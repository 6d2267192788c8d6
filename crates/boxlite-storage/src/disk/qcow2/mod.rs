//! qcow2 as far as boxlite needs it: the header, and the chains of backing files.
//!
//! Format: QEMU's `docs/interop/qcow2`. The reader is for hostile input: it reads at most [`header::BOUND`] bytes
//! of a file, never probes a format that is named, and answers "unknown" rather than guess. Its answers may only
//! ever *keep* a file.

pub mod chain;
mod content;
pub(crate) mod delta;
pub mod header;
mod name;
mod write;

#[cfg(test)]
pub(in crate::disk) mod tests;

pub use chain::{ChainLink, Chains, Followed, Unknown};
pub use content::is_pristine;
pub use header::{BackingFormat, Qcow2Header};
pub use name::BackingDirectories;
pub(crate) use name::is_delta;
pub(crate) use write::{
    CLUSTER, HeaderPlace, MAX_VIRTUAL_SIZE, PER_L1_ENTRY, backing_name, header_bytes, overlay_header,
};

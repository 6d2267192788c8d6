//! Files between the host and a box, as tar streams, for `cp`; archives as files, for `save` and `export`.
//!
//! The files written here are the user's own, so they do not go through `boxlite_home::durable`. A box is not trusted:
//! `DestinationTree` keeps every entry of its stream inside the destination.

mod archive;
mod endpoint;
mod file;
mod pack;
mod skipped;
mod space;
mod target;
mod tree;
mod unpack;

pub(crate) use endpoint::Endpoint;
pub(crate) use file::write_archive;
pub(crate) use pack::{CopySource, pack};
pub(crate) use skipped::SkippedPaths;
pub(crate) use unpack::unpack;

#[cfg(test)]
mod tests;

//! `cp`: files between the host and a box, as tar streams.
//!
//! The files written here are the user's own and not boxlite's, so they do not go through `boxlite_home::durable`.

mod endpoint;
mod pack;
mod target;
mod tree;
mod unpack;

pub(crate) use endpoint::Endpoint;
pub(crate) use pack::{Source, pack};
pub(crate) use unpack::unpack;

#[cfg(test)]
mod tests;

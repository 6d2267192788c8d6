//! Commands that clients began: their output waits here, bounded, until somebody attaches.

mod buffer;
mod command;
mod input;
mod reaper;
mod registry;
mod routes;
mod session;

pub(super) use command::Abandoned;
pub(super) use reaper::reap;
pub(super) use registry::{Executions, MAX_COMMANDS};
pub(super) use routes::{attach_main, count, routes, seconds};

#[cfg(test)]
pub(super) use registry::tests::a_box;

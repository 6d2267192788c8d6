//! Executions: commands that clients began, kept with their bounded output until a client attaches.
//!
//! # Who keeps them
//!
//! The box itself, by its shim, so that they outlive this server and others see them (`held`). A [`ServedExecution`] then lasts
//! as long as one client is attached through this server, and holds nothing that would be lost with it. A box's main process,
//! and commands in a box that an older boxlite has started, are kept here.
//!
//! # Streams
//!
//! [`ServedExecution`] reads a command's output into an `OutputBuffer` and writes its `ExecutionInput` to the process. Both
//! count bytes from the command's start and drop only what was acknowledged, so a client that lost its connection resumes
//! without a gap. `session` moves the bytes of one attached client over its WebSocket.
//!
//! # Limits
//!
//! [`Executions`] admits at most [`MAX_EXECUTIONS`] that run or hold output here. [`boxlite::reap_action`] decides when an
//! execution without a client is signalled, released or dropped; the server's upkeep applies its decisions to those here.

mod buffer;
mod execution;
mod held;
mod input;
mod registry;
mod session;

pub(crate) use execution::{ExecutionOutcome, ExecutionTerms, ServedExecution, ServedProcess};
pub(crate) use held::{BegunExecution, FoundExecution};
pub(crate) use registry::{Executions, MAX_EXECUTIONS};
pub(crate) use session::{AttachTerms, serve_client};

#[cfg(test)]
pub(crate) use registry::tests::a_box;

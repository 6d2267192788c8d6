//! Executions: commands that clients began, kept with their bounded output until a client attaches.
//!
//! # Streams
//!
//! [`ServedExecution`] reads a command's output into an `OutputBuffer` and writes its `ExecutionInput` to the process. Both
//! count bytes from the command's start and drop only what was acknowledged, so a client that lost its connection resumes
//! without a gap. `session` moves the bytes of one attached client over its WebSocket.
//!
//! # Limits
//!
//! [`Executions`] admits at most [`MAX_EXECUTIONS`] that run or hold output. `reaper` decides when an execution without a
//! client is signalled, released or dropped; the server's upkeep applies its decisions.

mod buffer;
mod execution;
mod input;
mod reaper;
mod registry;
mod session;

pub(crate) use execution::{
    ExecutionOutcome, ExecutionTerms, ServedExecution, ServedProcess, UnattendedPolicy,
};
pub(crate) use registry::{Executions, MAX_EXECUTIONS};
pub(crate) use session::{AttachTerms, serve_client};

#[cfg(test)]
pub(crate) use registry::tests::a_box;

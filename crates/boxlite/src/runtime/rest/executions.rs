//! Commands that a box holds: a server's clients reach them over the public API.

use boxlite_types::{
    AttachedExecution, Error, ExecOptions, ExecutionState, HoldTerms, Result, SeatOptions, WindowSize,
};

use super::Remote;
use crate::runtime::operations::BoxExecutions;

fn unsupported<T>() -> Result<T> {
    Err(Error::unsupported(
        "a server holds the executions of its clients itself; use exec, or its public API",
    ))
}

impl BoxExecutions for Remote {
    async fn begin_execution(
        &self,
        _: &str,
        _: &str,
        _: ExecOptions,
        _: HoldTerms,
    ) -> Result<ExecutionState> {
        unsupported()
    }

    async fn execution(&self, _: &str, _: &str) -> Result<ExecutionState> {
        unsupported()
    }

    async fn executions(&self, _: &str) -> Result<Vec<ExecutionState>> {
        unsupported()
    }

    async fn attach_execution(&self, _: &str, _: &str, _: SeatOptions) -> Result<AttachedExecution> {
        unsupported()
    }

    async fn signal_execution(&self, _: &str, _: &str, _: i32) -> Result<()> {
        unsupported()
    }

    async fn resize_execution(&self, _: &str, _: &str, _: WindowSize) -> Result<()> {
        unsupported()
    }

    async fn end_execution(&self, _: &str, _: &str) -> Result<()> {
        unsupported()
    }
}

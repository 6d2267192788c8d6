//! Commands that the shim of their box holds.

use std::time::Instant;

use boxlite_types::{
    AttachedExecution, Error, ErrorKind, ExecOptions, ExecutionLimit, ExecutionState, HoldTerms, Result,
    SeatOptions, WindowSize,
};
use boxlite_vm::shim::ShimClient;

use super::Local;
use super::limit::TIMED_OUT;
use crate::litebox;
use crate::runtime::operations::BoxExecutions;

impl BoxExecutions for Local {
    async fn begin_execution(
        &self,
        id: &str,
        execution: &str,
        options: ExecOptions,
        terms: HoldTerms,
    ) -> Result<ExecutionState> {
        let asked = Instant::now();
        let begun = async {
            let record = self.find_running(id).await?;
            self.refuse_paused(&record, options.unless_paused).await?;
            let limit = options.timeout_ms.map(|ms| ExecutionLimit { ms, code: Some(TIMED_OUT) });
            let spec = litebox::exec_process(options, &record.options, &record.image_config)?;
            let terms = HoldTerms { limit: terms.limit.or(limit), ..terms };
            self.client(&record).begin_execution(execution, spec, terms).await
        };
        let begun = begun.await;
        // A caller that falls back on an exec of its own is counted there.
        if !begun.as_ref().is_err_and(|error: &Error| error.kind() == ErrorKind::Unsupported) {
            self.metrics.command_begun(&begun, asked.elapsed());
        }
        begun
    }

    async fn execution(&self, id: &str, execution: &str) -> Result<ExecutionState> {
        self.holder(id).await?.execution(execution).await
    }

    async fn executions(&self, id: &str) -> Result<Vec<ExecutionState>> {
        self.holder(id).await?.executions().await
    }

    async fn attach_execution(
        &self,
        id: &str,
        execution: &str,
        options: SeatOptions,
    ) -> Result<AttachedExecution> {
        self.holder(id).await?.attach_execution(execution, options).await
    }

    async fn signal_execution(&self, id: &str, execution: &str, signal: i32) -> Result<()> {
        self.holder(id).await?.signal_execution(execution, signal).await
    }

    async fn resize_execution(&self, id: &str, execution: &str, size: WindowSize) -> Result<()> {
        self.holder(id).await?.resize_execution(execution, size).await
    }

    async fn end_execution(&self, id: &str, execution: &str) -> Result<()> {
        self.holder(id).await?.end_execution(execution).await
    }
}

impl Local {
    /// Returns the holder of the box's executions; a box that does not run has none.
    async fn holder(&self, id: &str) -> Result<ShimClient> {
        match self.find_running(id).await {
            Ok(record) => Ok(self.client(&record)),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Err(Error::not_found(format!("box {id} does not run, and its executions ended with it"))
                    .because(error))
            }
            Err(error) => Err(error),
        }
    }
}

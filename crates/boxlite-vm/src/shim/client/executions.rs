//! Executions that the shim holds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxlite_proto::{
    EXECUTIONS, ExecSpec, ExecutionState, Frame, GivenInput, HoldTerms, ShimReply, ShimRequest, WinSize,
};
use boxlite_types::{
    AttachedExecution, Departure, Error, Execution, ExecutionControl, ExecutionSeat, ExitStatus, Result,
    SeatOptions, WindowSize,
};
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::session::{Control, Session, ShimConnection, StreamEnd};
use super::{CHANNEL, ShimClient, not_running, unexpected};

/// How long the shim may take to confirm that a seat is free.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

impl ShimClient {
    /// Begins a command that the shim holds as `execution`, and returns once it runs or could not be run. An execution of
    /// that id that is there already is left as it is.
    ///
    /// # Errors
    /// `Unsupported` for a shim of an older version; `Conflict` when the box does not run; `Busy` when the shim holds as
    /// much as it may.
    pub async fn begin_execution(
        &self,
        execution: &str,
        spec: ExecSpec,
        terms: HoldTerms,
    ) -> Result<ExecutionState> {
        self.execution_state(&ShimRequest::Begin { execution: execution.to_owned(), spec, terms }).await
    }

    /// Describes an execution that the shim holds.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for a shim of an older version; `Conflict` when the box does not run.
    pub async fn execution(&self, execution: &str) -> Result<ExecutionState> {
        self.execution_state(&ShimRequest::Inspect { execution: execution.to_owned() }).await
    }

    /// Describes all executions that the shim holds, the one begun last first.
    ///
    /// # Errors
    /// `Unsupported` for a shim of an older version; `Conflict` when the box does not run.
    pub async fn executions(&self) -> Result<Vec<ExecutionState>> {
        match self.ask_able(&ShimRequest::ListExecutions).await? {
            (_, ShimReply::Executions(states)) => Ok(states),
            (_, other) => Err(unexpected(&other)),
        }
    }

    /// Takes the seat of an execution, and with it its streams.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when another client has the seat, or the output from there on is not held any more.
    pub async fn attach_execution(&self, execution: &str, options: SeatOptions) -> Result<AttachedExecution> {
        let SeatOptions { from, replace, resumes, stdin } = options;
        let execution = execution.to_owned();
        let request = ShimRequest::AttachExecution {
            id: CHANNEL,
            execution: execution.clone(),
            from,
            replace,
            resumes,
            stdin,
        };
        let (connection, reply) = self.ask_able(&request).await?;
        let ShimReply::ExecutionAttached { position, input, queued, state, .. } = reply else {
            return Err(unexpected(&reply));
        };
        let session = Session::seated(connection, CHANNEL, input, queued);
        let Session { output, stdin: input, control } = session;
        let seat = Arc::new(HeldSeat { execution, client: self.clone(), control });
        let stdin = (stdin && state.stdin).then(|| -> Pin<Box<dyn AsyncWrite + Send>> { Box::pin(input) });
        let control = Arc::clone(&seat) as Arc<dyn ExecutionControl>;
        let execution = Execution { stdin, output: Box::pin(output), control };
        Ok(AttachedExecution { execution, seat, position, state })
    }

    /// Sends a signal to an execution's process, and returns once the guest has it; one that has ended ignores it.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when the guest does not answer within some seconds.
    pub async fn signal_execution(&self, execution: &str, signo: i32) -> Result<()> {
        self.done_able(&ShimRequest::SignalExecution { execution: execution.to_owned(), signo }).await?;
        self.answers().await
    }

    /// Kills an execution that has not ended, and hides it from everyone but a client that is about to attach.
    ///
    /// # Errors
    /// As for [`Self::signal_execution`].
    pub async fn end_execution(&self, execution: &str) -> Result<()> {
        self.done_able(&ShimRequest::EndExecution { execution: execution.to_owned() }).await?;
        self.answers().await
    }

    /// Resizes an execution's terminal.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resize_execution(&self, execution: &str, size: WindowSize) -> Result<()> {
        let size = WinSize::from(size);
        self.done_able(&ShimRequest::ResizeExecution { execution: execution.to_owned(), size }).await
    }

    async fn execution_state(&self, request: &ShimRequest) -> Result<ExecutionState> {
        match self.ask_able(request).await? {
            (_, ShimReply::Execution(state)) => Ok(state),
            (_, other) => Err(unexpected(&other)),
        }
    }

    async fn done_able(&self, request: &ShimRequest) -> Result<()> {
        match self.ask_able(request).await? {
            (_, ShimReply::Done) => Ok(()),
            (_, other) => Err(unexpected(&other)),
        }
    }

    /// Asks a shim that holds executions; an older one would take the request for a broken protocol.
    async fn ask_able(&self, request: &ShimRequest) -> Result<(ShimConnection, ShimReply)> {
        let frame = Frame::control(request)
            .map_err(|error| Error::invalid("the request does not fit a frame").because(error))?;
        let (mut connection, abilities) = self.greet().await?;
        if !abilities.iter().any(|able| able == EXECUTIONS) {
            return Err(Error::unsupported(
                "this box was started by an older boxlite, whose shim holds no executions; stop and start it",
            ));
        }
        connection.sink.send(frame);
        match connection.answer().await? {
            None | Some(ShimReply::Stopped { .. }) => Err(not_running(self.paths.root())),
            Some(reply) => Ok((connection, reply)),
        }
    }
}

/// The seat of an execution, and its control.
struct HeldSeat {
    execution: String,
    client: ShimClient,
    control: Control,
}

impl HeldSeat {
    fn send(&self, request: &ShimRequest) {
        // Always serialises; a connection that has ended takes it silently.
        let _ = self.control.sink().control(request);
    }
}

#[async_trait]
impl ExecutionSeat for HeldSeat {
    fn taken(&self, position: u64) {
        self.send(&ShimRequest::Taken { execution: self.execution.clone(), position });
    }

    fn release(&self) {
        self.send(&ShimRequest::ReleaseExecution { execution: self.execution.clone() });
    }

    async fn leave(&self, how: Departure) {
        let (broke, returns) = (how == Departure::Broke, how == Departure::Returns);
        self.send(&ShimRequest::LeaveExecution { execution: self.execution.clone(), broke, returns });
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.control.left()).await;
    }

    fn given(&self) -> watch::Receiver<GivenInput> {
        self.control.given()
    }
}

#[async_trait]
impl ExecutionControl for HeldSeat {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.client.signal_execution(&self.execution, signal).await
    }

    async fn answers(&self) -> Result<()> {
        self.client.answers().await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        self.client.resize_execution(&self.execution, size).await
    }

    async fn started(&self) -> Result<bool> {
        Ok(true)
    }

    async fn wait(&self) -> Result<ExitStatus> {
        match self.control.ended().await {
            StreamEnd::Process(status) => Ok(status),
            StreamEnd::Copied(_) => Err(Error::bug("a process ended like a copy")),
            StreamEnd::Failed(error) => Err(error),
        }
    }
}

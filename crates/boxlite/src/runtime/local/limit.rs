//! The time limit of a command.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxlite_types::{Execution, ExecutionControl, ExitStatus, Result, WindowSize};
use futures::StreamExt;
use tokio::sync::watch;

/// The exit status of a command that exceeded its limit: that of coreutils' `timeout`.
pub(super) const TIMED_OUT: i32 = 124;

/// How long a killed command may take to end before its caller is told that it may run on.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of a command's time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LimitPhase {
    Waiting,
    /// The command exceeded it and was killed.
    Killed,
    /// The command has not ended although it was killed.
    Survived,
}

/// Has the command killed once `limit` has passed from now, whoever holds the execution then.
pub(super) fn limit(execution: Execution, limit: Duration) -> Execution {
    let (told, phase) = watch::channel(LimitPhase::Waiting);
    tokio::spawn(enforce(Arc::clone(&execution.control), limit, told));
    let given_up = reached(phase.clone(), LimitPhase::Survived);
    Execution {
        output: Box::pin(execution.output.take_until(Box::pin(given_up))),
        control: Arc::new(LimitedProcess { control: execution.control, limit, phase }),
        ..execution
    }
}

async fn enforce(control: Arc<dyn ExecutionControl>, limit: Duration, told: watch::Sender<LimitPhase>) {
    if tokio::time::timeout(limit, control.wait()).await.is_ok() {
        return;
    }
    told.send_replace(LimitPhase::Killed);
    let killing = async {
        if let Err(error) = control.signal(libc::SIGKILL).await {
            tracing::debug!(error = %error.chain(), "a command over its limit could not be killed");
        }
        control.wait().await
    };
    if tokio::time::timeout(KILL_TIMEOUT, killing).await.is_err() {
        told.send_replace(LimitPhase::Survived);
        // Keeps the channel open, on which the phase was said.
        told.closed().await;
    }
}

/// Returns once the limit has come to `phase`; never if it does not.
async fn reached(mut limit: watch::Receiver<LimitPhase>, phase: LimitPhase) {
    if limit.wait_for(|now| *now >= phase).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Controls a command that has a time limit.
struct LimitedProcess {
    control: Arc<dyn ExecutionControl>,
    limit: Duration,
    phase: watch::Receiver<LimitPhase>,
}

#[async_trait]
impl ExecutionControl for LimitedProcess {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.control.signal(signal).await
    }

    async fn answers(&self) -> Result<()> {
        self.control.answers().await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        self.control.resize(size).await
    }

    async fn started(&self) -> Result<bool> {
        tokio::select! {
            biased;
            started = self.control.started() => started,
            () = reached(self.phase.clone(), LimitPhase::Survived) => Ok(false),
        }
    }

    async fn detach(&self) -> Result<()> {
        self.control.detach().await
    }

    async fn wait(&self) -> Result<ExitStatus> {
        let status = tokio::select! {
            biased;
            status = self.control.wait() => status?,
            () = reached(self.phase.clone(), LimitPhase::Survived) => {
                let reason = format!(
                    "the command exceeded its limit of {:?} and was killed, but had not ended {} s later; it may run on",
                    self.limit,
                    KILL_TIMEOUT.as_secs()
                );
                return Ok(ExitStatus { code: TIMED_OUT, reason: Some(reason) });
            }
        };
        if *self.phase.borrow() == LimitPhase::Waiting {
            return Ok(status);
        }
        let reason = format!("the command exceeded its limit of {:?} and was killed", self.limit);
        Ok(ExitStatus { code: TIMED_OUT, reason: Some(reason) })
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::OutputChunk;
    use futures::stream;

    use super::*;

    /// A command that ends only when it is killed, if at all.
    struct Stubborn {
        mortal: bool,
        killed: watch::Sender<bool>,
    }

    #[async_trait]
    impl ExecutionControl for Stubborn {
        async fn signal(&self, signal: i32) -> Result<()> {
            assert_eq!(signal, libc::SIGKILL);
            self.killed.send_replace(true);
            Ok(())
        }

        async fn resize(&self, _: WindowSize) -> Result<()> {
            Ok(())
        }

        async fn started(&self) -> Result<bool> {
            std::future::pending().await
        }

        async fn wait(&self) -> Result<ExitStatus> {
            let mut killed = self.killed.subscribe();
            let _ = killed.wait_for(|killed| *killed && self.mortal).await;
            Ok(ExitStatus { code: 137, reason: None })
        }
    }

    fn limited(mortal: bool) -> Execution {
        let control = Arc::new(Stubborn { mortal, killed: watch::Sender::new(false) });
        let output = Box::pin(stream::pending::<Result<OutputChunk>>());
        limit(Execution { stdin: None, output, control }, Duration::from_secs(3))
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_over_its_limit_is_killed_and_ends_with_124() {
        let began = tokio::time::Instant::now();
        let status = limited(true).control.wait().await.unwrap();
        assert_eq!((status.code, began.elapsed().as_secs()), (124, 3));
        assert!(!status.reason.unwrap().contains("may run on"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_survives_is_left_after_two_seconds() {
        let began = tokio::time::Instant::now();
        let mut execution = limited(false);
        assert!(execution.output.next().await.is_none());
        assert!(!execution.control.started().await.unwrap());
        let status = execution.control.wait().await.unwrap();
        assert_eq!((status.code, began.elapsed().as_secs()), (124, 5));
        assert!(status.reason.unwrap().contains("may run on"));
    }
}

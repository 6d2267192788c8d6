//! The processes of a box, and what they write: its main process, further commands, its log.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use boxlite_types::{
    BoxRecord, Error, ErrorKind, ExecOptions, Execution, ExecutionControl, ExitStatus, GuestProcesses,
    LogLine, LogOptions, OutputChunk, Result, WindowSize,
};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;

use super::attending::Attending;
use super::limit::limit;
use super::{Local, exit};
use crate::litebox::{self, LogHistory, Observed};
use crate::runtime::operations::{BoxLifecycle, BoxProcesses, LogStream};

/// How long a guest may take to list its processes.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

impl BoxProcesses for Local {
    async fn attach(&self, id: &str) -> Result<Execution> {
        let record = self.find(id).await?;
        let attending = self.attend(&record).await?;
        if self.is_running(&record).await? {
            self.refuse_paused(&record, false).await?;
            match self.client(&record).attach(Some(0), record.options.stdin, None).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Ok(execution) => return Ok(self.outliving_its_shim(record, attending, execution)),
                Err(error) => return Err(error),
            }
        }
        let status = self.wait(&record.id).await?;
        let last_run = LogOptions { run: Some(-1), ..LogOptions::default() };
        let lines = match self.history(&record, last_run).await {
            Ok(history) => history.lines,
            // A run that ended before there was a log.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let chunks = lines.into_iter().map(|line| Ok(OutputChunk { stream: line.stream, bytes: line.bytes }));
        Ok(Execution {
            stdin: None,
            output: Box::pin(stream::iter(chunks)),
            control: Arc::new(ExitedProcess { status }),
        })
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution> {
        let asked = Instant::now();
        let begun = async {
            let record = self.find_running(id).await?;
            self.refuse_paused(&record, options.unless_paused).await?;
            let limit_ms = options.timeout_ms;
            let spec = litebox::exec_process(options, &record.options, &record.image_config)?;
            let execution = self.client(&record).exec(spec).await?;
            Ok(match limit_ms {
                Some(limit_ms) => limit(execution, Duration::from_millis(limit_ms)),
                None => execution,
            })
        };
        let begun = begun.await;
        self.metrics.command_begun(&begun, asked.elapsed());
        begun
    }

    async fn processes(&self, id: &str) -> Result<GuestProcesses> {
        let record = self.find_running(id).await?;
        self.refuse_paused(&record, false).await?;
        let client = self.client(&record);
        tokio::time::timeout(LIST_TIMEOUT, client.processes()).await.unwrap_or_else(|_| {
            let message = format!(
                "the guest of box {} has not listed its processes for {} s",
                record.name,
                LIST_TIMEOUT.as_secs()
            );
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        let record = self.find(id).await?;
        let attending = self.attend(&record).await?;
        if options.follow && options.console {
            return Err(Error::unsupported(
                "the console's log cannot be followed; ask for it without follow",
            ));
        }
        let left = options.until.map(|until| until.duration_since(Timestamp::now()));
        let is_over = left.is_some_and(|left| !left.is_positive());
        let follow = options.follow && !is_over && self.is_running(&record).await?;
        let history = self.history(&record, options.clone()).await?;
        let (run, position) = (history.last_run, history.position);
        let lines = stream::iter(history.lines.into_iter().map(Ok));
        if !follow || !history.has_last {
            return Ok(lines.boxed());
        }
        match self.client(&record).attach(Some(position), false, None).await {
            Ok(execution) => {
                let following = lines.chain(dated_lines(run, execution.output));
                let following = following.inspect(move |_| {
                    // Kept with the stream, whose last lines may come from the log.
                    let _ = &attending;
                });
                Ok(match left.and_then(|left| Duration::try_from(left).ok()) {
                    Some(left) => following.take_until(Box::pin(tokio::time::sleep(left))).boxed(),
                    None => following.boxed(),
                })
            }
            // The run ended in between; what it wrote since is in the log now.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let lines = self.history(&record, options).await?.lines;
                Ok(stream::iter(lines.into_iter().map(Ok)).boxed())
            }
            Err(error) => Err(error),
        }
    }
}

impl Local {
    /// Reads what is kept and wanted of the box's log.
    async fn history(&self, record: &BoxRecord, options: LogOptions) -> Result<LogHistory> {
        let id = record.id.clone();
        self.in_context(move |context| litebox::history(&context.home.of_box(&id), &options)).await
    }

    /// Makes the execution's wait fall back on the box's outcome when the shim ends before it could answer.
    fn outliving_its_shim(&self, record: BoxRecord, attending: Attending, execution: Execution) -> Execution {
        let control = MainProcessControl {
            local: self.clone(),
            record,
            control: execution.control,
            _attending: attending,
        };
        Execution { control: Arc::new(control), ..execution }
    }
}

/// Live output of a run as log lines, dated on arrival.
fn dated_lines(
    run: u64,
    output: Pin<Box<dyn Stream<Item = Result<OutputChunk>> + Send>>,
) -> impl Stream<Item = Result<LogLine>> + Send {
    output.map(move |chunk| {
        chunk.map(|chunk| LogLine { run, at: Timestamp::now(), stream: chunk.stream, bytes: chunk.bytes })
    })
}

/// Controls a main process that exited before a client attached.
struct ExitedProcess {
    status: ExitStatus,
}

#[async_trait]
impl ExecutionControl for ExitedProcess {
    async fn signal(&self, _: i32) -> Result<()> {
        Err(Error::conflict("the main process has ended"))
    }

    async fn resize(&self, _: WindowSize) -> Result<()> {
        Ok(())
    }

    async fn started(&self) -> Result<bool> {
        Ok(true)
    }

    async fn wait(&self) -> Result<ExitStatus> {
        Ok(self.status.clone())
    }
}

/// Controls the main process of a running box.
struct MainProcessControl {
    local: Local,
    record: BoxRecord,
    control: Arc<dyn ExecutionControl>,
    /// Until it is gone the box keeps its outcome.
    _attending: Attending,
}

#[async_trait]
impl ExecutionControl for MainProcessControl {
    async fn signal(&self, signal: i32) -> Result<()> {
        // As it is by now: its restart policy may have changed since the client attached.
        let record = self.local.find(&self.record.id).await?;
        self.local.signal_main(&record, signal).await?;
        self.local.client(&record).answers().await
    }

    async fn answers(&self) -> Result<()> {
        self.control.answers().await
    }

    async fn started(&self) -> Result<bool> {
        self.control.started().await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        self.control.resize(size).await
    }

    /// Reads the box's outcome rather than trusting the connection: it exists even when shim or VM were killed.
    async fn wait(&self) -> Result<ExitStatus> {
        self.local.client(&self.record).wait().await?;
        let record = match self.local.find(&self.record.id).await {
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => self.record.clone(),
            found => found?,
        };
        match self.local.observe(&record).await? {
            Observed::Resting(phase) => exit::of_phase(&record, phase),
            Observed::Running { .. } => Err(Error::conflict("the box was started again")),
        }
    }
}

//! What flows into and out of a box: its main process, execs, logs and archives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use boxlite_home::admission::SpaceGuard;
use boxlite_types::{
    BoxRecord, Error, ErrorKind, ExecOptions, ExecStatus, Execution, ExecutionControl, LogLine, LogOptions,
    OutputChunk, Result, WindowSize,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{ReaderStream, StreamReader};

use super::Local;
use super::lifecycle::ended;
use super::visit::Visit;
use crate::litebox::{self, Observed};

impl Local {
    /// The main process's streams from the run's beginning; of a run that has ended, its output and its status.
    pub(super) async fn attach_to(&self, id: &str) -> Result<Execution> {
        let record = self.find(id).await?;
        if let Observed::Running { .. } = self.observe(&record).await? {
            match self.client(&record).attach(Some(0), record.options.stdin, None).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Ok(execution) => return Ok(self.outlasting(record, execution)),
                Err(error) => return Err(error),
            }
        }
        let status = self.wait_for(&record.id).await?;
        let lines = self.history(&record, LogOptions::default()).await?.0;
        let chunks = lines.into_iter().map(|line| Ok(OutputChunk { stream: line.stream, bytes: line.bytes }));
        Ok(Execution {
            stdin: None,
            output: Box::pin(stream::iter(chunks)),
            control: Arc::new(Over { status }),
        })
    }

    /// An attachment whose wait falls back on the box's outcome when its shim is gone before it could answer.
    fn outlasting(&self, record: BoxRecord, execution: Execution) -> Execution {
        let control = Arc::new(MainControl { local: self.clone(), record, control: execution.control });
        Execution { control, ..execution }
    }

    pub(super) async fn exec_in(&self, id: &str, options: ExecOptions) -> Result<Execution> {
        let record = self.running(id).await?;
        let spec = litebox::exec_process(options, &record.options, &record.image_config)?;
        self.client(&record).exec(spec).await
    }

    pub(super) async fn logs_of(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let record = self.find(id).await?;
        if options.follow && options.console {
            return Err(Error::unsupported(
                "the console's log cannot be followed; ask for it without follow",
            ));
        }
        let follow = options.follow && matches!(self.observe(&record).await?, Observed::Running { .. });
        let (lines, position) = self.history(&record, options.clone()).await?;
        let history = stream::iter(lines.into_iter().map(Ok));
        if !follow {
            return Ok(history.boxed());
        }
        match self.client(&record).attach(Some(position), false, None).await {
            Ok(execution) => Ok(history.chain(live(execution.output)).boxed()),
            // The run ended in between; what it wrote since is in the log now.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let lines = self.history(&record, options).await?.0;
                Ok(stream::iter(lines.into_iter().map(Ok)).boxed())
            }
            Err(error) => Err(error),
        }
    }

    async fn history(&self, record: &BoxRecord, options: LogOptions) -> Result<(Vec<LogLine>, u64)> {
        let id = record.id.clone();
        self.on_site(move |site| litebox::history(&site.home.of_box(&id), &options)).await
    }

    pub(super) async fn copy_into(
        &self,
        id: &str,
        path: &str,
        tar: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        // What is copied lands in the box's overlay, so it is asked for like everything that takes space.
        let guard = self.on_site(|site| {
            let guard = SpaceGuard::new(&site.home, &site.settings)?;
            guard.check_before(0)?;
            Ok(guard)
        });
        let guard = guard.await?;
        let visit = self.visit(id).await?;
        let copied = visit.client.copy_in(path, false, Guarded { tar, guard, read: 0 }).await;
        let ended = visit.end().await;
        copied.and(ended)
    }

    pub(super) async fn copy_from(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let visit = self.visit(id).await?;
        match visit.client.copy_out(path, false).await {
            Ok(tar) => Ok(Box::new(passed_on(visit, tar))),
            Err(error) => {
                let _ = visit.end().await;
                Err(error)
            }
        }
    }
}

/// Bytes of an archive that are passed on at once.
const PIECE: usize = 64 << 10;
/// How many such pieces wait for their reader.
const PIECES: usize = 4;

/// An archive from a guest, with whose end, or whose reader's, the visit ends. A reader that does not read keeps nobody
/// from ending the guest.
fn passed_on(visit: Visit, tar: impl AsyncRead + Send + Unpin + 'static) -> impl AsyncRead + Send + Unpin {
    let (pieces, received) = mpsc::channel(PIECES);
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        let passed = tokio::select! {
            passed = pass(tar, pieces) => passed,
            () = visit.guest_gone() => Err(broken_off()),
        };
        let visited = visit.end().await.map_err(std::io::Error::from);
        let _ = ended.send(passed.and(visited));
    });
    let pieces = stream::unfold(received, async |mut received: mpsc::Receiver<Bytes>| {
        received.recv().await.map(|piece| (Ok(piece), received))
    });
    // Without a word on its end an archive is not whole.
    let end = stream::once(end).filter_map(async |told| match told {
        Ok(ended) => ended.err().map(Err),
        Err(_) => Some(Err(broken_off())),
    });
    StreamReader::new(Box::pin(pieces.chain(end)))
}

async fn pass(tar: impl AsyncRead + Unpin, pieces: mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut tar = ReaderStream::with_capacity(tar, PIECE);
    while let Some(piece) = tar.next().await {
        if pieces.send(piece?).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn broken_off() -> std::io::Error {
    Error::new(ErrorKind::Cancelled, "the copy was broken off with its guest").into()
}

/// An archive on its way in, which breaks off when the host's disk runs short.
struct Guarded {
    tar: Box<dyn AsyncRead + Send + Unpin>,
    guard: SpaceGuard,
    read: u64,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.tar).poll_read(context, buffer))?;
        self.read += (buffer.filled().len() - before) as u64;
        Poll::Ready(self.guard.check_streaming(self.read).map_err(std::io::Error::from))
    }
}

/// Live output as log lines, dated on arrival.
fn live(
    output: Pin<Box<dyn Stream<Item = Result<OutputChunk>> + Send>>,
) -> impl Stream<Item = Result<LogLine>> + Send {
    output.map(|chunk| {
        chunk.map(|chunk| LogLine { at: Timestamp::now(), stream: chunk.stream, bytes: chunk.bytes })
    })
}

/// A main process that ended before anybody attached.
struct Over {
    status: ExecStatus,
}

#[async_trait]
impl ExecutionControl for Over {
    async fn signal(&self, _: i32) -> Result<()> {
        Err(Error::conflict("the main process has ended"))
    }

    async fn resize(&self, _: WindowSize) -> Result<()> {
        Ok(())
    }

    async fn started(&self) -> Result<bool> {
        Ok(true)
    }

    async fn wait(&self) -> Result<ExecStatus> {
        Ok(self.status.clone())
    }
}

/// The main process of a running box.
struct MainControl {
    local: Local,
    record: BoxRecord,
    control: Arc<dyn ExecutionControl>,
}

#[async_trait]
impl ExecutionControl for MainControl {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.local.client(&self.record).kill(signal).await
    }

    async fn started(&self) -> Result<bool> {
        self.control.started().await
    }

    async fn resize(&self, size: WindowSize) -> Result<()> {
        self.control.resize(size).await
    }

    /// The box's outcome rather than the connection's word: it is also there when shim or VM were killed.
    async fn wait(&self) -> Result<ExecStatus> {
        self.local.client(&self.record).wait().await?;
        let record = match self.local.find(&self.record.id).await {
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => self.record.clone(),
            found => found?,
        };
        match self.local.observe(&record).await? {
            Observed::Resting(phase) => ended(&record, phase),
            Observed::Running { .. } => Err(Error::conflict("the box was started again")),
        }
    }
}

//! The façade: everything that the command line, the server and an embedding program can do.

mod backend;
mod execution;
mod requests;

use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::error::Result;
use crate::litebox::{BoxInfo, BoxOptions};

pub use backend::RuntimeBackend;
pub use execution::{ExecStatus, Execution, ExecutionControl, OutputChunk, OutputStream};
pub use requests::{
    BoxFilter, ExecOptions, ListOptions, LogLine, LogOptions, RemoveOptions, StopOptions, WindowSize,
};

/// A runtime on one home, or on a remote one; cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    backend: Arc<dyn RuntimeBackend>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime over any backend.
    pub fn new(backend: Arc<dyn RuntimeBackend>) -> Self {
        Self { backend }
    }

    /// Creates a box: finds or pulls its image and records it; nothing runs yet.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `NotFound` when there is no such image, `InvalidInput` for options
    /// that contradict each other or the image.
    pub async fn create(&self, options: BoxOptions) -> Result<BoxInfo> {
        self.backend.create(options).await
    }

    /// The boxes, oldest first: the running ones, or all.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        self.backend.list(options).await
    }

    /// One box.
    pub async fn inspect(&self, id: &str) -> Result<BoxInfo> {
        self.backend.inspect(id).await
    }

    /// Starts a box and returns when its guest is up; a running one is left as it is.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures when the disk is too full; the box then keeps its state and nothing
    /// was written. `Unsupported` when this host lacks what a box needs.
    pub async fn start(&self, id: &str) -> Result<BoxInfo> {
        self.backend.start(id).await
    }

    /// Connects to the main process of a running box, from its first output on as far as the log reaches.
    pub async fn attach(&self, id: &str) -> Result<Execution> {
        self.backend.attach(id).await
    }

    /// Runs a command in a running box.
    ///
    /// # Errors
    /// `Conflict` when the box does not run. A command that cannot be run is no error: its status is 126 or 127.
    pub async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution> {
        self.backend.exec(id, options).await
    }

    /// Waits until the box is not running and returns how its last run ended.
    pub async fn wait(&self, id: &str) -> Result<ExecStatus> {
        self.backend.wait(id).await
    }

    /// Stops a box: the stop signal, KILL after the timeout, then a clean unmount; a stopped one stays as it is.
    pub async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        self.backend.stop(id, options).await
    }

    /// Sends a signal to the main process of a running box.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.backend.kill(id, signal).await
    }

    /// Removes a box, its overlay and its logs; its disk image stays for `gc` to judge.
    ///
    /// # Errors
    /// `Conflict` when it runs and `force` is not set.
    pub async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        self.backend.remove(id, options).await
    }

    /// What the main process of the box's last run wrote, as far as the bounded log still has it.
    pub async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.backend.logs(id, options).await
    }

    /// Unpacks a tar stream into the directory `path` of a running box; no entry escapes it.
    pub async fn copy_in(&self, id: &str, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()> {
        self.backend.copy_in(id, path, tar).await
    }

    /// Packs the file or directory `path` of a running box into a tar stream.
    pub async fn copy_out(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.backend.copy_out(id, path).await
    }
}

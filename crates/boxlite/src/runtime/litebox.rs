//! One box, for a program that works with it.

use std::sync::Arc;

use boxlite_types::{
    BoxInfo, BoxOptions, CloneOptions, Consumption, ExecOptions, ExecStatus, Execution, LogLine, LogOptions,
    ProgressSink, RemoveOptions, Result, StopOptions,
};
use futures::stream::BoxStream;
use tokio::io::AsyncRead;

use super::Runtime;

/// A box of a runtime; cheap to clone. Dropping it changes nothing: the box is the home's, not the program's.
///
/// Every method is [`Runtime`]'s of the same name for this box, with its errors; whoever else removes the box makes
/// them `NotFound`.
#[derive(Debug, Clone)]
pub struct LiteBox {
    runtime: Runtime,
    id: String,
}

impl LiteBox {
    /// A new box; see [`Runtime::create`].
    pub async fn create(
        runtime: &Runtime,
        options: BoxOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let info = runtime.create(options, progress).await?;
        Ok(Self { runtime: runtime.clone(), id: info.id })
    }

    /// The box of that name, id or unique prefix of an id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when several ids begin with it.
    pub async fn find(runtime: &Runtime, wanted: &str) -> Result<Self> {
        let info = runtime.inspect(wanted).await?;
        Ok(Self { runtime: runtime.clone(), id: info.id })
    }

    /// Its id, 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is and does; see [`Runtime::inspect`].
    pub async fn info(&self) -> Result<BoxInfo> {
        self.runtime.inspect(&self.id).await
    }

    /// What it consumes; see [`Runtime::consumption`].
    pub async fn consumption(&self) -> Result<Consumption> {
        self.runtime.consumption(&self.id).await
    }

    /// Starts it; see [`Runtime::start`].
    pub async fn start(&self, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.runtime.start(&self.id, progress).await
    }

    /// Clones it; see [`Runtime::clone_box`].
    pub async fn clone_box(&self, options: CloneOptions) -> Result<Self> {
        let info = self.runtime.clone_box(&self.id, options).await?;
        Ok(Self { runtime: self.runtime.clone(), id: info.id })
    }

    /// Connects to its main process; see [`Runtime::attach`].
    pub async fn attach(&self) -> Result<Execution> {
        self.runtime.attach(&self.id).await
    }

    /// Runs a command in it; see [`Runtime::exec`].
    pub async fn exec(&self, options: ExecOptions) -> Result<Execution> {
        self.runtime.exec(&self.id, options).await
    }

    /// Waits until it does not run; see [`Runtime::wait`].
    pub async fn wait(&self) -> Result<ExecStatus> {
        self.runtime.wait(&self.id).await
    }

    /// Stops it; see [`Runtime::stop`].
    pub async fn stop(&self, options: StopOptions) -> Result<BoxInfo> {
        self.runtime.stop(&self.id, options).await
    }

    /// Signals its main process; see [`Runtime::kill`].
    pub async fn kill(&self, signal: i32) -> Result<()> {
        self.runtime.kill(&self.id, signal).await
    }

    /// Its main process's output; see [`Runtime::logs`].
    pub async fn logs(&self, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.runtime.logs(&self.id, options).await
    }

    /// Unpacks a tar stream into it; see [`Runtime::copy_in`].
    pub async fn copy_in(&self, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()> {
        self.runtime.copy_in(&self.id, path, tar).await
    }

    /// Packs one of its files or directories; see [`Runtime::copy_out`].
    pub async fn copy_out(&self, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.runtime.copy_out(&self.id, path).await
    }

    /// Removes it; see [`Runtime::remove`].
    pub async fn remove(self, options: RemoveOptions) -> Result<()> {
        self.runtime.remove(&self.id, options).await
    }
}

//! What a backend must do: the local one does it, the REST one asks a server.

use std::sync::Arc;

use async_trait::async_trait;
use boxlite_types::{
    Activity, BoxInfo, BoxOptions, CloneOptions, Consumption, Error, ExecOptions, ExecStatus, Execution,
    GcOptions, GcReport, HostInfo, Image, ListOptions, LogLine, LogOptions, ProgressSink, PullOptions,
    Removal, RemoveOptions, Result, StopOptions, Usage,
};
use futures::stream::BoxStream;
use tokio::io::AsyncRead;

/// The operations behind [`crate::runtime::Runtime`], where each is documented.
///
/// `id` is a name, an id or a unique prefix of an id throughout.
#[async_trait]
pub trait RuntimeBackend: Send + Sync {
    /// See [`crate::runtime::Runtime::info`].
    async fn info(&self) -> Result<HostInfo>;
    /// See [`crate::runtime::Runtime::collect_garbage`].
    ///
    /// A backend that is not the host itself keeps this answer: a host's disk is collected on that host.
    async fn collect_garbage(&self, _options: GcOptions) -> Result<GcReport> {
        Err(Error::unsupported("a host's disk is collected on that host; run `boxlite gc` there"))
    }
    /// See [`crate::runtime::Runtime::activity`].
    async fn activity(&self) -> Result<Activity>;
    /// See [`crate::runtime::Runtime::consumption`].
    async fn consumption(&self, id: &str) -> Result<Consumption>;
    /// See [`crate::runtime::Runtime::disk_usage`].
    async fn disk_usage(&self) -> Result<Usage>;
    /// See [`crate::runtime::Runtime::pull`].
    async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image>;
    /// See [`crate::runtime::Runtime::images`].
    async fn images(&self) -> Result<Vec<Image>>;
    /// See [`crate::runtime::Runtime::image`].
    async fn image(&self, wanted: &str) -> Result<Image>;
    /// See [`crate::runtime::Runtime::remove_image`].
    async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>>;
    /// See [`crate::runtime::Runtime::create`].
    async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;
    /// See [`crate::runtime::Runtime::clone_box`].
    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo>;
    /// See [`crate::runtime::Runtime::list`].
    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>>;
    /// See [`crate::runtime::Runtime::inspect`].
    async fn inspect(&self, id: &str) -> Result<BoxInfo>;
    /// See [`crate::runtime::Runtime::start`].
    async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;
    /// See [`crate::runtime::Runtime::attach`].
    async fn attach(&self, id: &str) -> Result<Execution>;
    /// See [`crate::runtime::Runtime::exec`].
    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution>;
    /// See [`crate::runtime::Runtime::wait`].
    async fn wait(&self, id: &str) -> Result<ExecStatus>;
    /// See [`crate::runtime::Runtime::stop`].
    async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo>;
    /// See [`crate::runtime::Runtime::kill`].
    async fn kill(&self, id: &str, signal: i32) -> Result<()>;
    /// See [`crate::runtime::Runtime::remove`].
    async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()>;
    /// See [`crate::runtime::Runtime::logs`].
    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>>;
    /// See [`crate::runtime::Runtime::copy_in`].
    async fn copy_in(&self, id: &str, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()>;
    /// See [`crate::runtime::Runtime::copy_out`].
    async fn copy_out(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>>;
}

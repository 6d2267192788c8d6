//! What a backend must do: the local one does it, the REST one asks a server.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::io::AsyncRead;

use super::{
    Activity, Consumption, ExecOptions, ExecStatus, Execution, HostInfo, ListOptions, LogLine, LogOptions,
    RemoveOptions, StopOptions,
};
use crate::error::{Error, Result};
use crate::gc::{GcOptions, GcReport, Usage};
use crate::image::{Image, ProgressSink, PullOptions, Removal};
use crate::litebox::{BoxInfo, BoxOptions, CloneOptions};

/// The operations behind [`crate::Runtime`], where each is documented.
///
/// `id` is a name, an id or a unique prefix of an id throughout.
#[async_trait]
pub trait RuntimeBackend: Send + Sync {
    /// See [`crate::Runtime::info`].
    async fn info(&self) -> Result<HostInfo>;
    /// See [`crate::Runtime::collect_garbage`].
    ///
    /// A backend that is not the host itself keeps this answer: a host's disk is collected on that host.
    async fn collect_garbage(&self, _options: GcOptions) -> Result<GcReport> {
        Err(Error::unsupported("a host's disk is collected on that host; run `boxlite gc` there"))
    }
    /// See [`crate::Runtime::activity`].
    async fn activity(&self) -> Result<Activity>;
    /// See [`crate::Runtime::consumption`].
    async fn consumption(&self, id: &str) -> Result<Consumption>;
    /// See [`crate::Runtime::disk_usage`].
    async fn disk_usage(&self) -> Result<Usage>;
    /// See [`crate::Runtime::pull`].
    async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image>;
    /// See [`crate::Runtime::images`].
    async fn images(&self) -> Result<Vec<Image>>;
    /// See [`crate::Runtime::image`].
    async fn image(&self, wanted: &str) -> Result<Image>;
    /// See [`crate::Runtime::remove_image`].
    async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>>;
    /// See [`crate::Runtime::create`].
    async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;
    /// See [`crate::Runtime::clone_box`].
    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo>;
    /// See [`crate::Runtime::list`].
    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>>;
    /// See [`crate::Runtime::inspect`].
    async fn inspect(&self, id: &str) -> Result<BoxInfo>;
    /// See [`crate::Runtime::start`].
    async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo>;
    /// See [`crate::Runtime::attach`].
    async fn attach(&self, id: &str) -> Result<Execution>;
    /// See [`crate::Runtime::exec`].
    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution>;
    /// See [`crate::Runtime::wait`].
    async fn wait(&self, id: &str) -> Result<ExecStatus>;
    /// See [`crate::Runtime::stop`].
    async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo>;
    /// See [`crate::Runtime::kill`].
    async fn kill(&self, id: &str, signal: i32) -> Result<()>;
    /// See [`crate::Runtime::remove`].
    async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()>;
    /// See [`crate::Runtime::logs`].
    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>>;
    /// See [`crate::Runtime::copy_in`].
    async fn copy_in(&self, id: &str, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()>;
    /// See [`crate::Runtime::copy_out`].
    async fn copy_out(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>>;
}

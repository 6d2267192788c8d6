//! The façade: everything that the command line, the server and an embedding program can do.

mod backend;
mod litebox;
mod local;
mod rest;

use std::sync::Arc;

use boxlite_types::{
    Activity, BoxInfo, BoxOptions, CloneOptions, Consumption, ExecOptions, ExecStatus, Execution, GcOptions,
    GcReport, HostInfo, Image, ListOptions, LogLine, LogOptions, ProgressSink, PullOptions, Removal,
    RemoveOptions, Result, StopOptions, Usage,
};
use futures::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::site::RuntimeOptions;

pub use backend::RuntimeBackend;
pub use litebox::LiteBox;
pub use rest::RemoteOptions;

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

    /// A runtime on a home of this host.
    ///
    /// # Errors
    /// `InvalidInput` for a setting that is wrong, `Unsupported` for a filesystem that cannot hold a home, `Denied`
    /// where the home cannot be written.
    pub fn local(options: RuntimeOptions) -> Result<Self> {
        Ok(Self::new(Arc::new(local::Local::open(options)?)))
    }

    /// A runtime on the home of a server, `boxlite serve`; asks it nothing yet.
    ///
    /// Paths in requests (of image layouts, archives, volumes) are the server's, and so is what answers tell. Waiting,
    /// following a log and pulling take as long as they take, while the server shows that it lives; a command's
    /// connection that breaks is made again, and nothing of its input and output is lost.
    ///
    /// # Errors
    /// `InvalidInput` for a URL or a key that cannot be used. Every method besides its own errors: `Unavailable` when
    /// the server cannot be reached or breaks off, `Denied` for a wrong key, `Unsupported` when what answers is no
    /// boxlite server; [`boxlite_types::Error::server`] then names it.
    pub fn remote(options: &RemoteOptions) -> Result<Self> {
        Ok(Self::new(Arc::new(rest::Remote::new(options)?)))
    }

    /// Removes what no box needs, and only what is provably unneeded; with `dry_run`, says what would go.
    ///
    /// What could not be read or removed is in the report, whose [`GcReport::failed`] then says so; the rest goes
    /// on. Works with 0 bytes and 0 inodes free, beside any number of starts.
    ///
    /// # Errors
    /// `Unsupported` through a REST backend: a host's disk is collected on that host.
    pub async fn collect_garbage(&self, options: GcOptions) -> Result<GcReport> {
        self.backend.collect_garbage(options).await
    }

    /// What takes how much of the disk, in allocated bytes, by kind, box and image.
    pub async fn disk_usage(&self) -> Result<Usage> {
        self.backend.disk_usage().await
    }

    /// Fetches and verifies an image; what the home has already is not fetched again.
    ///
    /// `reference` is as Docker users write it, or `oci:DIR[:tag]`, `oci-archive:FILE`, `docker-archive:FILE`.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`, `Corrupt`, and `ResourceExhausted`, after which everything that was
    /// written is gone again.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        self.backend.pull(reference, options, progress).await
    }

    /// What this runtime has done since it was opened; of a remote one, what its server has done.
    pub async fn activity(&self) -> Result<Activity> {
        self.backend.activity().await
    }

    /// What a box consumes: its disk on the host, and, while it runs, what its guest says of itself.
    pub async fn consumption(&self, id: &str) -> Result<Consumption> {
        self.backend.consumption(id).await
    }

    /// All images, the one pulled last first.
    pub async fn images(&self) -> Result<Vec<Image>> {
        self.backend.images().await
    }

    /// The image of that reference, digest or unique digest prefix.
    pub async fn image(&self, wanted: &str) -> Result<Image> {
        self.backend.image(wanted).await
    }

    /// Takes a name from an image, and the image out of the catalogue with its last name; `gc` frees the bytes.
    ///
    /// # Errors
    /// `Conflict` without `force` when a box uses the image.
    pub async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>> {
        self.backend.remove_image(wanted, force).await
    }

    /// The state of this host and its home: what boxes need of it, free space, settings in force.
    pub async fn info(&self) -> Result<HostInfo> {
        self.backend.info().await
    }

    /// Creates a box: finds or pulls its image and records it; nothing runs yet.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `NotFound` when there is no such image, `InvalidInput` for options
    /// that contradict each other or the image.
    pub async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.backend.create(options, progress).await
    }

    /// Clones a box that does not run: a new box with its options and its disk, which both share and neither changes.
    ///
    /// # Errors
    /// `Conflict` when the box runs or the name is taken, `ResourceExhausted` when the disk is too full.
    pub async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo> {
        self.backend.clone_box(id, options).await
    }

    /// The boxes, oldest first: the running ones, or all.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        self.backend.list(options).await
    }

    /// One box.
    pub async fn inspect(&self, id: &str) -> Result<BoxInfo> {
        self.backend.inspect(id).await
    }

    /// Starts a box and returns when its main process runs; a running one is left as it is.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures when the disk is too full; the box then keeps its state and nothing
    /// was written. `Unsupported` when this host lacks what a box needs.
    pub async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.backend.start(id, progress).await
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

    /// Unpacks a tar stream into the directory `path` of a box; no entry escapes it.
    ///
    /// A box that does not run is held meanwhile, and what was copied is durable at the end.
    ///
    /// # Errors
    /// `ResourceExhausted` with the figures where there is no room; `Conflict` for a box that goes now that it
    /// has ended.
    pub async fn copy_in(&self, id: &str, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()> {
        self.backend.copy_in(id, path, tar).await
    }

    /// Packs the file or directory `path` of a box into a tar stream. A box that does not run is held until the end
    /// of the stream or its reader's, or until somebody stops or removes it by force.
    ///
    /// # Errors
    /// As [`Runtime::copy_in`].
    pub async fn copy_out(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.backend.copy_out(id, path).await
    }
}

//! Run OCI images as small virtual machines ("boxes") that never fill the host.
//!
//! A [`Runtime`] works on a *home*, the directory that holds images and boxes: one on this host ([`Runtime::local`], no
//! daemon needed), or a server's ([`Runtime::remote`]). Many processes may work on one home at once. A [`LiteBox`] is a
//! handle to one box; it has the runtime's operations on boxes without their `id`.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use boxlite::{
//!     BoxOptions, ExecOptions, GcOptions, LiteBox, MainProcess, RemoveOptions, Runtime, RuntimeOptions, StopOptions,
//! };
//! use futures::StreamExt;
//! use tokio::io::AsyncReadExt;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::local(RuntimeOptions::new("/srv/boxlite"))?;
//!
//! // Create a box without a main process: it runs until it is stopped. `()` takes progress reports and drops them.
//! let options = BoxOptions { image: "alpine".into(), main: MainProcess::Idle, ..BoxOptions::default() };
//! let litebox = LiteBox::create(&runtime, options, Arc::new(())).await?;
//! litebox.start(Arc::new(())).await?;
//!
//! // Run a command and read its output.
//! let command = vec!["uname".into(), "-a".into()];
//! let mut execution = litebox.exec(ExecOptions { command, ..ExecOptions::default() }).await?;
//! while let Some(chunk) = execution.output.next().await {
//!     print!("{}", String::from_utf8_lossy(&chunk?.bytes));
//! }
//! assert_eq!(execution.control.wait().await?.code, 0);
//!
//! // Copy a directory out of it, as a tar archive.
//! let mut archive = Vec::new();
//! litebox.copy_out("/etc", boxlite::CopyOptions::default()).await?.read_to_end(&mut archive).await?;
//!
//! // Stop and remove it, and collect what no box needs any more.
//! litebox.stop(StopOptions::default()).await?;
//! litebox.remove(RemoveOptions::default()).await?;
//! let report = runtime.collect_garbage(GcOptions::default()).await?;
//! println!("reclaimed {} bytes", report.reclaimed);
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//! QEMU, a guest kernel and two programs of its own; [`AssetSearch`] says where they are looked for, and
//! [`Runtime::info`] what is missing. The library reads no environment variables: [`RuntimeOptions`] carries what a
//! program wants to pass on of its user's environment. It runs on tokio, neither prints nor exits, and logs with
//! `tracing`.
//!
//! # Errors
//! Every operation returns one [`Error`]; [`ErrorKind`] is what a program decides by. `ResourceExhausted` means that the
//! host's disk is too full, and [`Error::shortage`] then has the figures.
//!
//! # Examples
//! `cargo run -p boxlite --example run_command -- IMAGE [COMMAND…]`, and `box_pool` and `embed_gc` beside it.

mod assets;
mod context;
mod keep;
mod litebox;
mod options;
mod pool;
mod relief;
mod runtime;
mod starters;
mod time;
mod traces;

pub use assets::AssetSearch;
pub use boxlite_home::settings::{self, Settings, SettingsOptions, SettingsVariables};
pub use boxlite_storage::image::RegistryPolicy;
pub use boxlite_storage::reference::Reference;
pub use boxlite_types::{
    Acceleration, Activity, AddedHost, Adoption, Allotment, ArchiveFormat, AssetReport, AttachedExecution,
    BoxExportOptions, BoxFilter, BoxImportOptions, BoxInfo, BoxOptions, BoxState, ChangeKind, CloneOptions,
    CommitOptions, Consumption, CopyOptions, CreationKey, Departure, Digest, DiskImageFetch,
    DiskImageFetchOptions, DiskImagePush, DiskImagePushOptions, Error, ErrorCause, ErrorKind, EventAction,
    EventOptions, EventPage, EventPosition, EventSubject, ExecOptions, Execution, ExecutionControl,
    ExecutionEnd, ExecutionLimit, ExecutionSeat, ExecutionState, ExitStatus, FileChange, FreeSpace,
    GcActivity, GcOptions, GcReport, GivenInput, GuestMetrics, GuestProcess, GuestProcesses, Health,
    HealthCheck, HealthStatus, HistoryEntry, HoldTerms, HomeEvent, HostInfo, HostMemory, Image, ImageConfig,
    ImportedBox, JailInfo, JailMeasure, KEPT_TIMEOUT, LATENCY_BOUNDS, Latencies, LatencyHistogram, Layer,
    ListOptions, LogLine, LogOptions, Login, Logout, MainProcess, Membership, MemoryInfo, NetworkBox,
    NetworkInfo, NetworkJoin, NetworkMode, NetworkOptions, NetworkPrune, NetworkRefusals, NetworkUsage,
    NodeCheck, NodeMemory, NodeReclaimable, NodeSpace, Origin, OutputChunk, OutputStream, PastProbe, Pause,
    PauseCause, PeerUsage, Platform, PortForward, Progress, ProgressSink, Protocol, PullOptions, PullPolicy,
    Purge, PushOptions, QuotaUse, ReapAction, RefusalKind, RefusedDestination, Removal, RemoveOptions,
    RestartPolicy, RestoreOptions, Result, RunOutcome, SeatOptions, SettingLine, Shortage, Snapshot,
    SnapshotOptions, SpaceFloors, SpaceInfo, StartStage, StartTimes, StopOptions, Subnet, UnattendedPolicy,
    UpdateOptions, Usage, Verdict, VolumeInfo, VolumeMount, VolumeOptions, VolumePrune, WindowSize, gc,
    is_volume_name, parse_ports, parse_signal, reap_action, wire,
};
pub use boxlite_vm::shim::Accel;
pub use boxlite_vm::volume::{named_text, parse_named, parse_volume};
pub use keep::keep;
pub use options::{MissingHome, RuntimeOptions};
pub use relief::relieve;
pub use runtime::{
    ArchiveInput, LiteBox, LogStream, RemoteOptions, Runtime, TarStream, Tunnel, measure_node,
};

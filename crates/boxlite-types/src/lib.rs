//! The vocabulary of boxlite: what callers ask, what they are told, and the one [`Error`].
//!
//! Plain data without input or output, so that every other crate can stand on it: the storage of images, the virtual
//! machines, the façade, a server and its clients.
//!
//! - **Boxes**: [`BoxOptions`] is what a caller asks for, [`BoxRecord`] what the database keeps, [`BoxInfo`] what is
//!   observed.
//! - **Images**: [`Image`] and its [`Layer`]s, [`Digest`], [`Platform`], [`Progress`] of a pull.
//! - **Health**: [`HealthCheck`] asks for a check of a box, [`Health`] says what came of it.
//! - **Commands in boxes**: [`ExecOptions`], [`Execution`], [`ExitStatus`].
//! - **Space**: [`FreeSpace`], [`Verdict`], and the [`gc`] options and reports.
//! - **[`wire`]**: bodies and frames of the HTTP API that client and server share.

mod activity;
mod allow_rule;
mod box_file;
mod box_info;
mod box_options;
mod box_record;
mod change;
mod digest;
mod error;
mod event;
mod execution;
pub mod gc;
mod guest_options;
mod health;
mod host;
mod image;
mod image_requests;
mod init_system;
mod latency;
mod named_volume;
mod network;
mod node;
mod pause;
mod platform;
mod port;
mod progress;
mod requests;
mod restart;
mod signal;
mod snapshot;
mod space;
mod update;
mod volume;
pub mod wire;

pub use activity::{Activity, Consumption};
pub use allow_rule::{AllowRule, AllowTarget, MAX_ALLOW_RULES, NAME_SERVER_PORTS};
pub use box_file::{BoxExportOptions, BoxFileDisk, BoxFileHead, BoxImportOptions, ImportedBox};
pub use box_info::{BoxInfo, BoxState};
pub use box_options::{BoxOptions, CreationKey, MainProcess, NetworkMode, PullPolicy};
pub use box_record::{BoxDescription, BoxRecord, Phase, Restarts, RunOutcome, SnapshotRecord};
pub use boxlite_proto::{
    ExecutionEnd, ExecutionLimit, ExecutionState, GivenInput, GuestMetrics, GuestProcess, GuestProcesses,
    GuestStart, HoldTerms, KEPT_TIMEOUT, NetworkRefusals, NetworkUsage, PeerUsage, ReapAction, RefusalKind,
    RefusedDestination, UnattendedPolicy, reap_action,
};
pub use change::{ChangeKind, CommitOptions, FileChange};
pub use digest::Digest;
pub use error::{Doing, Error, ErrorCause, ErrorKind, Result, Shortage};
pub use event::{EventAction, EventOptions, EventPage, EventPosition, EventSubject, HomeEvent};
pub use execution::{
    AttachedExecution, Departure, Execution, ExecutionControl, ExecutionSeat, ExitStatus, OutputChunk,
    OutputStream, SeatOptions, WindowSize,
};
pub use gc::{GcActivity, GcOptions, GcReport, Usage};
pub use guest_options::{
    AddedHost, AddedHostTarget, MAX_ADDED_HOSTS, MAX_HOST_PORTS, MAX_NAME_SERVERS, check_host_ports,
    parse_name_servers, parse_search_domains, parse_sysctls, parse_ulimits,
};
pub use health::{Health, HealthCheck, HealthPlan, HealthStatus, PastProbe};
pub use host::{
    Acceleration, AssetReport, HostInfo, HostMemory, JailInfo, JailMeasure, MemoryInfo, Origin, SettingLine,
    SpaceFloors, SpaceInfo,
};
pub use image::{Image, ImageConfig, Layer, PullOptions, Removal};
pub use image_requests::{
    ArchiveFormat, DiskImageFetch, DiskImageFetchOptions, DiskImagePush, DiskImagePushOptions, HistoryEntry,
    Login, Logout, PushOptions,
};
pub use init_system::runs_init_system;
pub use latency::{LATENCY_BOUNDS, Latencies, LatencyHistogram, LatencyRecorder, StartStage, StartTimes};
pub use named_volume::{
    VolumeDescription, VolumeInfo, VolumeMount, VolumeOptions, VolumePrune, is_volume_name,
};
pub use network::{
    MAX_MEMBERS, Membership, NetworkBox, NetworkDescription, NetworkInfo, NetworkJoin, NetworkOptions,
    NetworkPrune, Subnet, check_aliases, check_network_name,
};
pub use node::{Allotment, NodeCheck, NodeMemory, NodeReclaimable, NodeSpace};
pub use pause::{Pause, PauseCause, QuotaUse};
pub use platform::Platform;
pub use port::{PortForward, Protocol, parse_ports, refuse_overlaps};
pub use progress::{Progress, ProgressSink};
pub use requests::{
    Adoption, BoxFilter, CopyOptions, ExecOptions, ListOptions, LogLine, LogOptions, Purge, RemoveOptions,
    StopOptions,
};
pub use restart::RestartPolicy;
pub use signal::{parse_signal, stop_signal};
pub use snapshot::{RestoreOptions, Snapshot, SnapshotOptions};
pub use space::{FreeSpace, Verdict};
pub use update::{CloneOptions, UpdateOptions};
pub use volume::Volume;

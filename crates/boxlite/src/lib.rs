//! Run OCI images as small virtual machines that never fill the host.

mod assets;
mod litebox;
mod runtime;
mod site;

pub use boxlite_home::settings::{self, Settings, SettingsOptions};
pub use boxlite_home::{BoxPaths, Home};
pub use boxlite_storage::image::Images;
pub use boxlite_storage::reference::{Reference, RegistryReference};
pub use boxlite_types::{
    Acceleration, Activity, AssetReport, BoxFilter, BoxInfo, BoxOptions, BoxState, CloneOptions, Consumption,
    Digest, Error, ErrorKind, ExecOptions, ExecStatus, Execution, ExecutionControl, FreeSpace, GcActivity,
    GcOptions, GcReport, GuestMetrics, HostInfo, Image, ImageConfig, Layer, ListOptions, LogLine, LogOptions,
    MainProcess, NetworkMode, Origin, OutputChunk, OutputStream, Platform, PortForward, Progress,
    ProgressSink, Protocol, PullOptions, PullPolicy, Removal, RemoveOptions, Result, SettingLine, Shortage,
    SpaceInfo, StopOptions, Usage, Verdict, WindowSize, gc, parse_ports, parse_signal, wire,
};
pub use boxlite_vm::shim::Accel;
pub use boxlite_vm::volume::parse_volume;
pub use runtime::{LiteBox, RemoteOptions, Runtime, RuntimeBackend};
pub use site::RuntimeOptions;

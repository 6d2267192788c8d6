//! Run OCI images as small virtual machines that never fill the host.

mod assets;
mod context;
mod litebox;
mod options;
mod runtime;
mod time;

pub use assets::AssetSearch;

pub use boxlite_home::settings::{self, Settings, SettingsOptions, SettingsVariables};
pub use boxlite_home::{BoxPaths, Home};
pub use boxlite_storage::image::Images;
pub use boxlite_storage::reference::{Reference, RegistryReference};
pub use boxlite_types::{
    Acceleration, Activity, AssetReport, BoxFilter, BoxInfo, BoxOptions, BoxState, CloneOptions, Consumption,
    Digest, Error, ErrorKind, ExecOptions, Execution, ExecutionControl, ExitStatus, FreeSpace, GcActivity,
    GcOptions, GcReport, GuestMetrics, HostInfo, Image, ImageConfig, Layer, ListOptions, LogLine, LogOptions,
    MainProcess, NetworkMode, Origin, OutputChunk, OutputStream, Platform, PortForward, Progress,
    ProgressSink, Protocol, PullOptions, PullPolicy, Removal, RemoveOptions, Result, SettingLine, Shortage,
    SpaceInfo, StopOptions, Usage, Verdict, WindowSize, gc, parse_ports, parse_signal, wire,
};
pub use boxlite_vm::shim::Accel;
pub use boxlite_vm::volume::parse_volume;
pub use options::RuntimeOptions;
pub use runtime::{LiteBox, LogStream, RemoteOptions, Runtime, TarStream};

//! Run OCI images as small virtual machines that never fill the host.

pub mod admission;
mod assets;
pub mod disk;
pub mod durable;
mod error;
pub mod gc;
pub mod guest;
mod home;
mod image;
mod litebox;
pub mod net;
mod runtime;
pub mod settings;
pub mod shim;
mod site;
mod store;
pub mod volume;

pub use assets::AssetReport;
pub use boxlite_proto::GuestMetrics;
pub use error::{Error, ErrorKind, Result, Shortage};
pub use gc::{GcActivity, GcOptions, GcReport, Usage};
pub use home::{BoxPaths, Home};
pub use image::{
    Digest, Image, ImageConfig, Images, Layer, Platform, Progress, ProgressSink, PullOptions, Reference,
    RegistryReference, Removal,
};
pub use litebox::{
    BoxInfo, BoxOptions, BoxState, CloneOptions, MainProcess, NetworkMode, PullPolicy, parse_signal,
};
pub use runtime::{
    Acceleration, Activity, BoxFilter, Consumption, ExecOptions, ExecStatus, Execution, ExecutionControl,
    HostInfo, ListOptions, LiteBox, LogLine, LogOptions, OutputChunk, OutputStream, RemoteOptions,
    RemoveOptions, Runtime, RuntimeBackend, SpaceInfo, StopOptions, WindowSize, wire,
};
pub use settings::{Settings, SettingsOptions};
pub use shim::Accel;
pub use site::RuntimeOptions;

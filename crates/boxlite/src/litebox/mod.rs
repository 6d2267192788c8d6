//! One box: what was asked for, what is recorded, what it is doing, and how it changes.

mod clone;
mod create;
mod hold;
mod info;
mod log;
mod name;
mod observe;
mod options;
mod process;
mod record;
mod remove;
mod signal;
mod start;

pub use clone::CloneOptions;
pub(crate) use clone::clone;
pub(crate) use create::{check, create};
pub(crate) use hold::Held;
pub use info::{BoxInfo, BoxState};
pub(crate) use log::history;
pub(crate) use observe::{Observed, describe, describe_listed};
pub use options::{BoxOptions, MainProcess, NetworkMode, PullPolicy};
pub(crate) use process::exec_process;
pub(crate) use record::{BoxRecord, Ending, Phase};
pub(crate) use remove::{reap, release_name, remove, remove_damaged};
pub use signal::parse_signal;
pub(crate) use start::{Errand, errand, start};

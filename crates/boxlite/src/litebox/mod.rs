//! One box: what was asked for, what is recorded, and what it may become.

mod info;
mod options;
mod record;

pub use info::{BoxInfo, BoxState};
pub use options::{BoxOptions, MainProcess, NetworkMode, PullPolicy};
pub(crate) use record::{BoxRecord, Ending, Phase};

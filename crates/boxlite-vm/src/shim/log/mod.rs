//! Bounded logs on the host's disk of what a guest says: a current file and one old one, each at most a cap long.
//!
//! The console's log has the last run and the one before. The main process's has all runs, and its bound makes the oldest
//! output go first.

mod capped;
mod files;
mod reader;
mod record;
mod writer;

pub(super) use capped::CappedFile;
pub use files::old_path;
pub(super) use files::{LogFiles, OwnFiles};
pub(crate) use reader::RunLog;
pub use reader::{MainLog, Record};
pub(crate) use writer::{MainLogWriter, unix_ms};

//! Bounded logs on the host's disk of what a guest says: a current file and one old one, each at most a cap long.

mod capped;
mod reader;
mod record;
mod writer;

pub(super) use capped::CappedFile;
pub use capped::old_path;
pub use reader::{MainLog, Record};
pub(crate) use writer::{MainLogWriter, unix_ms};

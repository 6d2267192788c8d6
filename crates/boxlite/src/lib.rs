//! Run OCI images as small virtual machines that never fill the host.

pub mod durable;
mod error;
mod home;

pub use error::{Error, ErrorKind, Result, Shortage};
pub use home::{BoxPaths, Home};

//! A boxlite home on disk, and the rules for everything that writes to it.
//!
//! - [`Home`], [`BoxPaths`], [`VolumePaths`] and [`NetworkPaths`]: where things live.
//! - [`durable`]: the only code that creates, renames or removes durable files.
//! - [`lease`]: while one is held, garbage collection does not delete the file.
//! - [`settings`]: thresholds and policy, each with where it came from.
//! - [`admission`]: whether there is room, and the claims that keep concurrent operations from sharing the same free
//!   bytes.

pub mod admission;
mod blocking;
pub mod boot_file;
pub mod durable;
mod events;
mod home;
mod id;
mod identity;
pub mod lease;
mod reserve;
pub mod settings;

pub use blocking::blocking;
pub use events::EventLog;
pub use home::{BoxPaths, Home, NetworkPaths, VolumePaths};
pub use id::is_id;
pub use identity::HomeIdentity;
pub use reserve::Reserve;

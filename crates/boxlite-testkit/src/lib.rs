//! Fixtures that several test targets and benches share; a dev-dependency, never part of a program.
//!
//! - [`assets`]: guest kernel, guest agent and test image.
//! - [`deadline`]: polling for a condition, within a limit in time.
//! - [`filesystem`]: small filesystems to fill, mounted for one test.
//! - [`oracle`]: whether a test can run on this machine, and how it says that it cannot.
//! - [`program`]: running a program and judging what it printed.
//! - [`registry`]: a registry on loopback.
//!
//! Unit tests of a crate see a second copy of that crate's types when a fixture returns them. No fixture here exposes a
//! type of another boxlite crate, so unit tests and tests of a crate's surface may use all of them.

#![allow(clippy::disallowed_methods, reason = "test code makes and removes files of its own")]

pub mod assets;
pub mod deadline;
pub mod filesystem;
pub mod oracle;
pub mod program;
pub mod registry;

//! One box: what was asked for, what is recorded, what it is doing, and how it changes.

mod clone;
mod create;
mod hold;
mod log;
mod name;
mod observe;
mod process;
mod remove;
mod start;

pub(crate) use clone::clone;
pub(crate) use create::{check, create};
pub(crate) use hold::Held;
pub(crate) use log::history;
pub(crate) use observe::{Observed, describe, describe_listed};
pub(crate) use process::exec_process;
pub(crate) use remove::{reap, release_name, remove, remove_damaged};
pub(crate) use start::{Errand, errand, start};

//! One box on this host: its record, what it is doing, and each change of its state.

mod adopt;
mod aftermath;
mod attendance;
mod clone;
mod create;
mod description;
mod guard;
mod kernel;
mod log;
mod memory;
mod name;
mod new_box;
mod observe;
mod pause;
mod process;
mod quota;
mod remove;
mod restart;
mod source;
mod start;
mod update;

pub(crate) use adopt::adopt;
pub(crate) use aftermath::Starter;
pub(crate) use attendance::Attendance;
pub(crate) use clone::clone;
pub(crate) use create::{check, check_mounts, check_network, create};
pub(crate) use guard::BoxGuard;
pub(crate) use kernel::{accept as accept_kernel, reject as reject_kernel, resolve_kernel};
pub(crate) use log::{LogHistory, history};
pub(crate) use memory::{check as check_memory, figures as memory_figures};
pub(crate) use observe::{Observed, describe, describe_listed};
pub(crate) use process::exec_process;
pub(crate) use remove::{ended, expire, reap, remove, remove_damaged, remove_expired};
pub(crate) use restart::{Decision, PendingRestart, after_refusal, decide};
pub(crate) use start::{MaintenanceBoot, StartedBox, boot_for_maintenance, start};
pub(crate) use update::{halt, update};

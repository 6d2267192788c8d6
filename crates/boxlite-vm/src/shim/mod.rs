//! One process per running box: it owns the box's QEMU, its logs and its control socket.
//!
//! ```text
//! boxlite ──spawn──▶ boxlite-shim ──▶ qemu-system-x86_64 ──▶ guest agent
//!    └──── shim.sock ────┘  └── QMP, agent port, console: socket pairs, no paths
//! ```
//!
//! - `shim.lock` is held through one open file description by the shim, its steward and its jailers: it can be taken
//!   exactly when all of them are gone. Process ids are shown to people and decide nothing.
//! - Once its children run, the shim has its open files and no others; see [`steward`].
//! - Children are killed by the kernel when the shim ends, however it ends. The shim notices QEMU's end through a
//!   pidfd and publishes the [`Outcome`] in room that it reserved when it started.
//! - One task, the driver, owns all state; see [`driver`].

pub mod accel;
pub(crate) mod backend;
mod bounded_text;
mod child;
mod claim;
mod client;
mod confinement;
mod control;
mod driver;
mod frames;
mod groups;
mod handover;
mod health;
mod jail;
mod keeper;
mod kernel;
mod launch;
mod log;
mod machine;
mod memory;
mod outcome;
mod pause;
mod quota;
mod relief;
mod running;
mod sink;
mod socket;
mod spawn;
mod start;
mod steward;
pub mod template;
mod tie;
mod vmm;
mod waiting;

pub use accel::{Accel, Accelerator};
pub use boxlite_jail::{MeasureState, jailer};
pub use client::{DiskSwitch, ShimClient, Thaw, wait_until_gone};
pub use health::read_health;
pub use jail::{bounds_processors, examine as examine_jail};
pub use keeper::Keeper;
pub use kernel::UserKernel;
pub use launch::{
    DiskFloors, GuestOrigin, JailPolicy, KeeperSpec, LaunchSpec, LogCaps, Purpose, TemplateKeep,
};
pub use log::old_path;
pub use log::{MainLog, Record};
pub use memory::{guest_memory, guest_within, memory_need, memory_used};
pub use outcome::{LOST_WRITES, Outcome, OutcomeCause};
pub use pause::read_pause;
pub use quota::DiskQuota;
pub use relief::CollectGarbage;
pub use spawn::{Detached, HandOver, Launched, PendingShim, begin, detach, spawn};
pub use start::{EndedBox, ShimLaunch};
pub use tie::own_process;
pub use waiting::{Hardware, WaitingGuest};

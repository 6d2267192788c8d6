//! Brings the guest up as the host says, and takes it down.
//!
//! | module | does |
//! | --- | --- |
//! | `root` | mounts the disk, makes it the root directory, grows its filesystem |
//! | `tree` | mounts the kernel's filesystems, the host's directories and those in memory inside the root |
//! | `volumes` | mounts named volumes, and fills an empty one from the image |
//! | `modules` | has the kernel ask the agent for the modules that it lacks |
//! | `etc` | sets the host name and provides `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` |
//! | `network` | configures the loopback interface and `eth0` |
//! | `rehearsal` | does all that once, to no effect, in a guest that waits for its box |
//! | `sysctl` | sets parameters of the kernel |

mod etc;
mod modules;
mod network;
mod rehearsal;
mod root;
mod sysctl;
mod tree;
mod volumes;

use std::time::Instant;

use boxlite_proto::{BootConfig, BootTimings};
use rustix::process::{Resource, Rlimit};
use rustix::time::{ClockId, Timespec};

pub(crate) use rehearsal::rehearse;

use crate::{devices, elapsed_us, linux};

/// A guest that has come up.
pub(crate) struct BootedGuest {
    pub(crate) timings: BootTimings,
    /// Failures that leave the guest usable.
    pub(crate) warnings: Vec<String>,
}

/// Mounts the root, enters it and sets the guest up as `config` says.
///
/// # Errors
/// One sentence for the user when the guest is unusable: no root, no `/proc`, something of `config` that cannot be mounted
/// or set, or a root that cannot be made read-only.
pub(crate) fn bring_up(config: &BootConfig) -> Result<BootedGuest, String> {
    let mut timings = BootTimings::default();
    let mut warnings = Vec::new();
    let started = Instant::now();
    // First, because guests restored from one template would draw the same random numbers.
    reseed(&config.entropy)?;
    warn(set_clock(config.clock_unix_nanos), &mut warnings);
    if !config.mounts.is_empty() {
        devices::find_shares();
    }
    devices::bind(config.modules)?;
    let etc_files = etc::prepare(config)?;
    let disk =
        if config.disks.is_empty() { root::DEVICE.to_owned() } else { volumes::device_with_serial("")? };
    let modules = config.modules.then(modules::prepare);
    root::mount(&disk)?;
    root::enter()?;
    timings.root_us = elapsed_us(started);

    let started = Instant::now();
    tree::mount(&mut warnings)?;
    if config.grow_root {
        warn(root::grow(&disk), &mut warnings);
    }
    set_limits(&mut warnings);
    warnings.extend(etc_files.install());
    if let Some(modules) = modules {
        warn(modules.install(), &mut warnings);
    }
    warnings.extend(network::configure(config.network.as_ref()));
    sysctl::apply(&config.sysctls)?;
    tree::make_volume_paths(config, &mut warnings);
    tree::mount_given(config)?;
    if config.read_only_root {
        root::make_read_only()?;
    }
    timings.setup_us = elapsed_us(started);
    Ok(BootedGuest { timings, warnings })
}

/// Flushes every filesystem and remounts the root read-only. Call it when no other process is left.
pub(crate) fn take_down(config: &BootConfig) {
    // The deepest first: a share or volume may lie below another.
    let mut volumes: Vec<_> = config.disks.iter().collect();
    volumes.sort_by_key(|volume| std::cmp::Reverse(volume.target.split('/').count()));
    volumes.into_iter().for_each(volumes::unmount);
    for share in config.mounts.iter().rev() {
        let _ = rustix::mount::unmount(share.path(), rustix::mount::UnmountFlags::DETACH);
    }
    rustix::fs::sync();
    if rustix::mount::mount_remount("/", rustix::mount::MountFlags::RDONLY, "").is_err() {
        // A process that cannot be killed still writes; the kernel's emergency remount does not wait for it.
        let _ = std::fs::write("/proc/sysrq-trigger", "u");
        rustix::fs::sync();
    }
}

fn warn(outcome: Result<(), String>, warnings: &mut Vec<String>) {
    if let Err(warning) = outcome {
        warnings.push(warning);
    }
}

fn reseed(entropy: &[u8]) -> Result<(), String> {
    if entropy.is_empty() {
        return Ok(());
    }
    linux::reseed(entropy).map_err(|error| format!("seeding the kernel's random numbers failed: {error}"))
}

/// Sets the clock to the host's, unless that is not known.
pub(crate) fn set_clock(unix_nanos: u64) -> Result<(), String> {
    if unix_nanos == 0 {
        return Ok(());
    }
    let time = Timespec {
        tv_sec: (unix_nanos / 1_000_000_000) as i64,
        tv_nsec: (unix_nanos % 1_000_000_000) as i64,
    };
    rustix::time::clock_settime(ClockId::Realtime, time).map_err(|e| format!("setting the clock failed: {e}"))
}

/// Sets the limits that processes inherit, and exempts the agent from the out-of-memory killer.
fn set_limits(warnings: &mut Vec<String>) {
    let limits = [
        (Resource::Nofile, Rlimit { current: Some(65_536), maximum: Some(1_048_576) }),
        (Resource::Core, Rlimit { current: Some(0), maximum: None }),
        (Resource::Nproc, Rlimit { current: None, maximum: None }),
    ];
    for (resource, limit) in limits {
        let outcome = rustix::process::setrlimit(resource, limit);
        warn(outcome.map_err(|e| format!("setting the limit {resource:?} failed: {e}")), warnings);
    }
    let outcome = std::fs::write("/proc/self/oom_score_adj", "-1000");
    warn(
        outcome.map_err(|e| format!("protecting the agent from the out-of-memory killer failed: {e}")),
        warnings,
    );
}

//! The guest agent: process 1 of a box's virtual machine.
//!
//! It is linked statically, starts from an initramfs, needs nothing of the image, and takes its orders from the box's shim
//! over a virtio-serial port. [`boxlite_proto`] describes the messages.
//!
//! # Layout
//!
//! | module | does |
//! | --- | --- |
//! | `early` | mounts device files, loads kernel modules, opens the port |
//! | `devices` | keeps drivers off the box's devices until `Boot`, so that a waiting guest can become a template |
//! | `boot` | brings the guest up: root, mounts, names, network; and takes it down |
//! | `health` | when to probe the box's health, and what came of it |
//! | `serve` | the event loop: requests in, events out, children reaped, shutdown in steps |
//! | `exec` | operations in child processes: execs, copies in and out, file descriptions |
//! | `port` | the connection to the shim, with bounded queues |
//! | `metrics` | what the guest consumes |
//! | `modprobe` | loads a module when the kernel, or a program, asks for it: another life of the same program |
//! | `linux` | system calls without a safe wrapper |
//!
//! # Life of a guest
//!
//! 1. `early` mounts `/dev` and `/sys`, loads the modules and opens the port; the agent sends `Hello`.
//! 2. The agent waits for `Boot`. It has touched neither disk nor network card so far.
//! 3. `boot` mounts the root and sets the guest up; the agent sends `Ready`, or `BootFailed` and powers off.
//! 4. `serve` runs operations until `Shutdown`: SIGTERM to all, SIGKILL after the grace, output drained, root read-only,
//!    then `Down`.
//! 5. The host ends the virtual machine. If it has not within [`HANG_UP_TIMEOUT`], the agent powers off.
//!
//! # Rules
//!
//! - **One thread.** A forked child may therefore run ordinary code.
//! - **The parent never blocks on the image.** Looking up users, changing directory and opening paths happen in children,
//!   because a hostile image can make each of them hang.
//! - **Memory is bounded** by the windows of the protocol, the port's queue limits and the number of operations.
//! - **Less code is faster.** In an emulated guest, code that runs for the first time dominates the boot, the kernel's as
//!   well as ours. So the agent avoids the standard library's start-up before `main`, and does not wait for events of
//!   devices that are there already.

#![cfg_attr(not(test), no_main)]

mod boot;
mod devices;
mod early;
mod exec;
mod health;
mod linux;
mod metrics;
mod modprobe;
mod port;
mod serve;

use std::time::{Duration, Instant};

use boxlite_proto::{
    AGENT_PORT, CLOCK, DISKS, FromGuest, HEALTH, Op, PLUGGED_SHARES, PROTOCOL_VERSION, ToGuest, UNTOUCHED,
};

use crate::boot::BootedGuest;
use crate::linux::Signals;
use crate::port::{Port, PortError};

/// How long the host may take to end the virtual machine after the last message, before the agent powers off.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the agent cannot go on. It is reported to the kernel's log, as the host cannot be reached any more.
#[derive(Debug)]
pub(crate) enum AgentError {
    /// A step before the first message failed.
    Step(String),
    /// The port failed, or the host broke the protocol.
    Port(PortError),
}

impl From<PortError> for AgentError {
    fn from(error: PortError) -> Self {
        Self::Port(error)
    }
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(step) => f.write_str(step),
            Self::Port(error) => write!(f, "the agent's port failed: {error}"),
        }
    }
}

/// The entry point that the C library calls.
// SAFETY: the name is the C library's for exactly this function, and nothing else here bears it.
#[cfg_attr(not(test), allow(unsafe_code), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main() -> libc::c_int {
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        if let Some(status) = modprobe::serve(std::env::args_os()) {
            return status;
        }
        eprintln!("boxlite-guest is the first process of a boxlite guest and does not run elsewhere");
        return 2;
    }
    std::panic::set_hook(Box::new(|panic| linux::kernel_log(&panic.to_string())));
    if let Err(fatal) = run() {
        linux::kernel_log(&fatal.to_string());
    }
    linux::power_off()
}

/// Why a guest does not come up in which nothing that waits would ever go on.
const NO_TIMER: &str = "the guest's kernel has found no timer: its host is too busy; start the box again with fewer others beside it";

fn run() -> Result<(), AgentError> {
    let kernel_us = linux::since_boot().as_micros() as u64;
    let agent_started = Instant::now();
    early::mount_devices()?;
    let signals = Signals::take().map_err(|e| AgentError::Step(format!("taking signals failed: {e}")))?;
    let mut port = early::find_port(AGENT_PORT)?;
    let has_timer = devices::has_timer();
    let untouched = (devices::are_untouched() && has_timer).then_some(UNTOUCHED);
    let features =
        ["copy", "stat", "metrics", DISKS, CLOCK, HEALTH, PLUGGED_SHARES].map(String::from).to_vec();
    let greeting = features.iter().cloned().chain(untouched.map(String::from)).collect();
    port.send(&FromGuest::Hello { version: PROTOCOL_VERSION, features: greeting })?;
    let agent_us = elapsed_us(agent_started);

    let waiting = Instant::now();
    let config = loop {
        match port.receive(&signals)? {
            ToGuest::Boot(config) => break config,
            ToGuest::Shutdown { .. } => {
                port.send(&FromGuest::Down)?;
                return await_hang_up(&mut port, &signals);
            }
            ToGuest::Op(Op::Ping { .. }) => boot::rehearse(),
            ToGuest::Op(_) | ToGuest::SetClock { .. } => {}
        }
    };
    let waited_us = elapsed_us(waiting);
    if !has_timer {
        port.send(&FromGuest::BootFailed { reason: NO_TIMER.to_owned(), may_retry: true })?;
        return await_hang_up(&mut port, &signals);
    }
    match boot::bring_up(&config) {
        Ok(mut guest) => {
            guest.timings.kernel_us = kernel_us;
            guest.timings.agent_us = agent_us;
            guest.timings.waited_us = waited_us;
            let BootedGuest { timings, warnings } = guest;
            port.send(&FromGuest::Ready { timings, warnings, features })?;
        }
        Err(reason) => {
            port.send(&FromGuest::BootFailed { reason, may_retry: false })?;
            return await_hang_up(&mut port, &signals);
        }
    }
    serve::serve(&mut port, &signals, &config)?;
    await_hang_up(&mut port, &signals)
}

/// Sends what is queued and gives the host time to end the virtual machine itself.
fn await_hang_up(port: &mut Port, signals: &Signals) -> Result<(), AgentError> {
    port.linger(signals, HANG_UP_TIMEOUT)?;
    Ok(())
}

fn elapsed_us(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

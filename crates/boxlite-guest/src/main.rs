//! PID 1 of a boxlite guest.
//!
//! It runs from an initramfs: loads the few kernel modules that come with it, answers on the virtio-serial port that
//! the host named `agent`, mounts the root filesystem when told how, and then runs processes in it until told to
//! shut down. It has one thread, so a forked child may run ordinary code, and it never does in the parent what the
//! image could make block: looking up users, changing directory and touching paths all happen in children.
//!
//! Where the guest is emulated, what costs time is each piece of code that runs for the first time, the kernel's as
//! well as ours. Hence the agent leaves out what it can do without, such as the standard library's preparations before
//! `main`, or events of devices that are there already.

#![cfg_attr(not(test), no_main)]

mod boot;
mod devices;
mod early;
mod exec;
mod linux;
mod metrics;
mod port;
mod serve;

use std::time::{Duration, Instant};

use boxlite_proto::{AGENT_PORT, FromGuest, PROTOCOL_VERSION, ToGuest, UNTOUCHED};

use crate::linux::Signals;
use crate::port::{Port, PortError};

/// How long the host may take to end the virtual machine after the last message, before the guest does.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why the agent can't go on; there is nobody but the kernel log left to tell.
#[derive(Debug)]
pub(crate) enum Fatal {
    /// A step of coming up failed.
    Step(String),
    /// The port failed or its other end broke the protocol.
    Port(PortError),
}

impl From<PortError> for Fatal {
    fn from(error: PortError) -> Self {
        Self::Port(error)
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(step) => f.write_str(step),
            Self::Port(error) => write!(f, "the agent's port failed: {error}"),
        }
    }
}

/// Called by the C library at once.
// SAFETY: the name is the C library's for exactly this function, and nothing else here bears it.
#[cfg_attr(not(test), allow(unsafe_code), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main() -> libc::c_int {
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        eprintln!("boxlite-guest is the first process of a boxlite guest and of no use elsewhere");
        return 2;
    }
    std::panic::set_hook(Box::new(|panic| linux::kernel_log(&panic.to_string())));
    if let Err(fatal) = run() {
        linux::kernel_log(&fatal.to_string());
    }
    linux::power_off()
}

fn run() -> Result<(), Fatal> {
    let kernel_us = linux::since_boot().as_micros() as u64;
    let agent_started = Instant::now();
    early::mount_devices()?;
    let signals = Signals::take().map_err(|e| Fatal::Step(format!("taking signals failed: {e}")))?;
    let mut port = early::find_port(AGENT_PORT)?;
    let untouched = devices::are_untouched().then_some(UNTOUCHED);
    let features = ["copy", "stat", "metrics"].into_iter().chain(untouched).map(String::from).collect();
    port.send(&FromGuest::Hello { version: PROTOCOL_VERSION, features })?;
    let agent_us = elapsed_us(agent_started);

    let waiting = Instant::now();
    let config = loop {
        match port.receive(&signals)? {
            ToGuest::Boot(config) => break config,
            ToGuest::Shutdown { .. } => {
                port.send(&FromGuest::Down)?;
                return farewell(&mut port, &signals);
            }
            ToGuest::Op(_) => {}
        }
    };
    let waited_us = elapsed_us(waiting);
    match boot::bring_up(&config) {
        Ok(mut up) => {
            up.timings.kernel_us = kernel_us;
            up.timings.agent_us = agent_us;
            up.timings.waited_us = waited_us;
            port.send(&FromGuest::Ready { timings: up.timings, warnings: up.warnings })?;
        }
        Err(reason) => {
            port.send(&FromGuest::BootFailed { reason })?;
            return farewell(&mut port, &signals);
        }
    }
    serve::serve(&mut port, &signals, &config)?;
    farewell(&mut port, &signals)
}

/// Sends what is queued and leaves the host a moment to end the machine itself.
fn farewell(port: &mut Port, signals: &Signals) -> Result<(), Fatal> {
    port.linger(signals, FAREWELL)?;
    Ok(())
}

fn elapsed_us(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

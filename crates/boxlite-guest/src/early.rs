//! Before the root is mounted: device files, modules, the port.

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use boxlite_proto::AGENT_PORT;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::Fatal;
use crate::port::Port;

/// The port is there within milliseconds; a machine without it must not wait for ever.
const PORT_TIMEOUT: Duration = Duration::from_secs(60);

fn step<T, E: std::fmt::Display>(doing: &str, outcome: Result<T, E>) -> Result<T, Fatal> {
    outcome.map_err(|error| Fatal::Step(format!("{doing} failed: {error}")))
}

/// Mounts what the agent itself needs and sees to it that the standard descriptors are taken, so that no other takes
/// their numbers.
pub(crate) fn mount_devices() -> Result<(), Fatal> {
    step("mounting /dev", rustix::mount::mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None))?;
    // The kernel connects its first process to a console; closing that takes long, and nobody uses it.
    if rustix::io::fcntl_getfd(rustix::stdio::stderr()).is_err() {
        let null = step("opening /dev/null", File::options().read(true).write(true).open("/dev/null"))?;
        step("filling stdin", rustix::stdio::dup2_stdin(&null))?;
        step("filling stdout", rustix::stdio::dup2_stdout(&null))?;
        step("filling stderr", rustix::stdio::dup2_stderr(&null))?;
        if null.as_raw_fd() <= libc::STDERR_FILENO {
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}

/// Loads the initramfs' modules and opens the agent's port once the kernel shows it.
pub(crate) fn find_port() -> Result<Port, Fatal> {
    load_modules()?;
    let deadline = Instant::now() + PORT_TIMEOUT;
    let mut announcements = None;
    loop {
        if let Some(path) = port_path() {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            return Ok(Port::new(step(
                "opening the agent's port",
                rustix::fs::open(path, flags, Mode::empty()),
            )?));
        }
        // The driver asks the host for its ports while the next module is loaded, so this is seldom reached.
        match &announcements {
            None => announcements = Some(step("watching /dev", watch_devices())?),
            Some(watch) => wait_for_device(watch, deadline)
                .ok_or_else(|| Fatal::Step(format!("the machine has no virtio-serial port {AGENT_PORT}")))?,
        }
    }
}

/// The port's device file: `vport`, the number of its device among all virtio devices, `p`, and its own number.
fn port_path() -> Option<PathBuf> {
    let number = format!("p{AGENT_PORT}");
    let is_it = |name: &str| name.strip_prefix("vport").is_some_and(|rest| rest.ends_with(&number));
    let mut entries = std::fs::read_dir("/dev").ok()?.flatten();
    entries.find(|entry| entry.file_name().to_str().is_some_and(is_it)).map(|entry| entry.path())
}

fn watch_devices() -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, "/dev", inotify::WatchFlags::CREATE)?;
    Ok(watch)
}

/// Returns when there is another file in /dev; `None` when the time is up.
fn wait_for_device(watch: &OwnedFd, deadline: Instant) -> Option<()> {
    let left = deadline.checked_duration_since(Instant::now())?;
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout));
    let mut buffer = [0; 4096];
    while rustix::io::read(watch, &mut buffer).is_ok_and(|length| length > 0) {}
    Some(())
}

fn load_modules() -> Result<(), Fatal> {
    let order = step("reading the list of modules", std::fs::read_to_string("/modules/order"))?;
    for module in order.lines() {
        let path = format!("/modules/{module}.ko");
        let file = step(&format!("opening {path}"), File::open(&path))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Fatal::Step(format!("loading the module {module} failed: {error}"))),
        }
    }
    Ok(())
}

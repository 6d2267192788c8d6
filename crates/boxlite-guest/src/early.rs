//! The steps before the agent greets the host: device files, kernel modules, the port.

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::port::Port;
use crate::{AgentError, devices};

/// Limit of the wait for the port, which normally shows up within milliseconds.
const PORT_TIMEOUT: Duration = Duration::from_secs(60);

fn step<T, E: std::fmt::Display>(doing: &str, outcome: Result<T, E>) -> Result<T, AgentError> {
    outcome.map_err(|error| AgentError::Step(format!("{doing} failed: {error}")))
}

/// Mounts what the agent itself needs, and opens the standard descriptors so that no other file gets their numbers.
pub(crate) fn mount_devices() -> Result<(), AgentError> {
    step("mounting /dev", rustix::mount::mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    step("mounting /sys", rustix::mount::mount("sysfs", "/sys", "sysfs", flags, None))?;
    // A console that the kernel connected the agent to stays open, because closing it takes long.
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

/// Loads the initramfs' modules and opens the virtio-serial port called `name` once the kernel shows its name.
///
/// The driver makes the device file before the port behind it works, and shows the name after that.
pub(crate) fn find_port(name: &str) -> Result<Port, AgentError> {
    load_modules()?;
    let deadline = Instant::now() + PORT_TIMEOUT;
    let mut announcements = None;
    loop {
        if let Some(path) = port_path(name) {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            return Ok(Port::new(step(
                "opening the agent's port",
                rustix::fs::open(path, flags, Mode::empty()),
            )?));
        }
        // Rarely reached, because the driver asks the host for its ports while the next module is loaded.
        match &announcements {
            None => announcements = Some(step("listening to the kernel", listen())?),
            Some(socket) => wait_for_announcement(socket, deadline)
                .ok_or_else(|| AgentError::Step(format!("no virtio-serial port is called {name}")))?,
        }
    }
}

fn port_path(name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        // A port shows up before the host has sent its name; another announcement follows with the name.
        if std::fs::read_to_string(entry.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::KOBJECT_UEVENT),
    )?;
    rustix::net::bind(&socket, &rustix::net::netlink::SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// Waits for the kernel to announce any device. Returns `None` at the deadline.
fn wait_for_announcement(socket: &OwnedFd, deadline: Instant) -> Option<()> {
    let left = deadline.checked_duration_since(Instant::now())?;
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout));
    let mut buffer = [0; 8192];
    while rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
    Some(())
}

fn load_modules() -> Result<(), AgentError> {
    load("transport")?;
    devices::hold_back();
    load("devices")
}

/// Loads the modules that a list of the initramfs names, in its order.
fn load(list: &str) -> Result<(), AgentError> {
    let order = step("reading the list of modules", std::fs::read_to_string(format!("/modules/{list}")))?;
    for module in order.lines() {
        let path = format!("/modules/{module}.ko");
        let file = step(&format!("opening {path}"), File::open(&path))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(AgentError::Step(format!("loading the module {module} failed: {error}")));
            }
        }
    }
    Ok(())
}

//! Before the root is mounted: device files, modules, the port.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::mount::MountFlags;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::Fatal;
use crate::port::Port;

/// The port is there within milliseconds; a machine without it must not wait for ever.
const PORT_TIMEOUT: Duration = Duration::from_secs(60);

fn step<T, E: std::fmt::Display>(doing: &str, outcome: Result<T, E>) -> Result<T, Fatal> {
    outcome.map_err(|error| Fatal::Step(format!("{doing} failed: {error}")))
}

/// Mounts what the agent itself needs and fills the standard descriptors, so that no other takes their numbers.
pub(crate) fn mount_devices() -> Result<(), Fatal> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    step("mounting /dev", rustix::mount::mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None))?;
    step("mounting /sys", rustix::mount::mount("sysfs", "/sys", "sysfs", flags | MountFlags::NODEV, None))?;
    let null = step("opening /dev/null", File::options().read(true).write(true).open("/dev/null"))?;
    step("filling stdin", rustix::stdio::dup2_stdin(&null))?;
    step("filling stdout", rustix::stdio::dup2_stdout(&null))?;
    step("filling stderr", rustix::stdio::dup2_stderr(&null))?;
    Ok(())
}

/// Loads the initramfs' modules and opens the virtio-serial port called `name` once the kernel shows it.
pub(crate) fn find_port(name: &str) -> Result<Port, Fatal> {
    // Listening begins before the driver is loaded, so that no announcement is missed.
    let announcements = step("listening to the kernel", listen())?;
    load_modules()?;
    let deadline = Instant::now() + PORT_TIMEOUT;
    loop {
        if let Some(path) = port_path(name) {
            let file = File::options().read(true).write(true).open(&path);
            return Ok(Port::new(step("opening the agent's port", file)?.into())?);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fatal::Step(format!("no virtio-serial port is called {name}")));
        }
        let mut fds = [PollFd::new(&announcements, PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        let mut buffer = [0; 8192];
        while rustix::net::recv(announcements.as_fd(), &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
    }
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

fn port_path(name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        // A port shows up before the host has told its name; another announcement follows then.
        if std::fs::read_to_string(entry.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

fn load_modules() -> Result<(), Fatal> {
    let order = step("reading the list of modules", std::fs::read_to_string("/modules/order"))?;
    for module in order.lines() {
        let path = format!("/modules/{module}.ko");
        let file = step(&format!("opening {path}"), File::open(&path))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(Fatal::Step(format!("loading the module {module} failed: {error}"))),
        }
        // The initramfs is memory: what has been loaded is not needed twice.
        let _ = std::fs::remove_file(&path);
    }
    Ok(())
}

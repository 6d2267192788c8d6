//! Has the kernel ask this agent for the modules that it lacks.
//!
//! Images rarely have `modprobe`, and theirs may know nothing of this kernel. So the agent's own program is what the kernel
//! runs to load a module ([`crate::modprobe`]), by a path that no image has. The modules' disk is mounted with the first of these
//! requests; at once only where the image has a `modprobe`, which may look into `/lib/modules` by itself.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use crate::modprobe::{self, DIRECTORY, HELPER};

/// Where images have programs that load modules.
const OF_IMAGES: [&str; 4] = ["/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe", "/usr/bin/modprobe"];

/// Device files whose opening has the kernel ask for a module: name, major and minor number (Linux `admin-guide/devices.txt`), and
/// the mode that udev gives them. What the kernel guards by itself is open to every user.
const DEVICE_FILES: [(&str, u32, u32, u32); 9] = [
    ("fuse", 10, 229, 0o666),
    ("net/tun", 10, 200, 0o666),
    ("loop-control", 10, 237, 0o660),
    ("mapper/control", 10, 236, 0o600),
    ("btrfs-control", 10, 234, 0o600),
    ("ppp", 108, 0, 0o600),
    ("cuse", 10, 203, 0o600),
    ("vhost-net", 10, 238, 0o600),
    ("vhost-vsock", 10, 241, 0o600),
];

/// The agent's program, which lies in the initramfs, as a mount that is not attached yet.
pub(super) struct ModuleHelper(rustix::io::Result<OwnedFd>);

/// Prepares what the root hides once it is entered.
pub(super) fn prepare() -> ModuleHelper {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    ModuleHelper(rustix::mount::open_tree(CWD, "/init", flags))
}

impl ModuleHelper {
    /// Puts the helper in place in the entered root.
    ///
    /// # Errors
    /// One sentence; the guest does without modules then.
    pub(super) fn install(self) -> Result<(), String> {
        self.attach().map_err(|error| format!("providing the kernel's modules failed: {error}"))
    }

    fn attach(self) -> io::Result<()> {
        fs::create_dir(DIRECTORY)?;
        fs::File::create(HELPER)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(self.0?.as_fd(), "", CWD, HELPER, flags)?;
        fs::write("/proc/sys/kernel/modprobe", HELPER)?;
        for (name, major, minor, mode) in DEVICE_FILES {
            make_device_file(&Path::new("/dev").join(name), makedev(major, minor), mode)?;
        }
        if OF_IMAGES.iter().any(|path| fs::symlink_metadata(path).is_ok()) {
            modprobe::provide()?;
        }
        Ok(())
    }
}

fn make_device_file(path: &Path, device: u64, mode: u32) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(mode), device) {
        // The mode that it was made with lacks what the mask takes away.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

//! Mounts the kernel's filesystems inside the root, the host's directories, named volumes, and filesystems in memory.
//!
//! All of it runs after the root was entered, so that no symbolic link of the image leads out of it.

use std::ffi::{CStr, CString};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use boxlite_proto::{BootConfig, DiskMount, SHARED_FILE, ShareMount, TmpfsMount};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::volumes;

struct KernelMount {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    options: Option<&'static CStr>,
    /// Whether the guest is unusable without it.
    needed: bool,
}

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

const MOUNTS: [KernelMount; 7] = [
    KernelMount { target: "/proc", kind: "proc", flags: PLAIN, options: None, needed: true },
    KernelMount { target: "/sys", kind: "sysfs", flags: PLAIN, options: None, needed: false },
    KernelMount { target: "/dev", kind: "devtmpfs", flags: MountFlags::NOSUID, options: None, needed: true },
    KernelMount {
        target: "/dev/pts",
        kind: "devpts",
        flags: DEVICES,
        options: Some(c"newinstance,gid=5,mode=620,ptmxmode=666"),
        needed: false,
    },
    KernelMount {
        target: "/dev/shm",
        kind: "tmpfs",
        flags: PLAIN,
        options: Some(c"mode=1777"),
        needed: false,
    },
    KernelMount { target: "/dev/mqueue", kind: "mqueue", flags: PLAIN, options: None, needed: false },
    KernelMount {
        target: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: PLAIN,
        options: Some(c"nsdelegate"),
        needed: false,
    },
];

/// Links that programs expect in /dev.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// Mounts the kernel's filesystems, creating mount points that the image lacks.
///
/// # Errors
/// When `/proc` or `/dev` cannot be mounted. All other failures become warnings.
pub(super) fn mount(warnings: &mut Vec<String>) -> Result<(), String> {
    for mount in &MOUNTS {
        if let Err(error) = mount_one(mount) {
            let message = format!("mounting {} failed: {error}", mount.target);
            if mount.needed {
                return Err(message);
            }
            warnings.push(message);
        }
    }
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                warnings.push(format!("linking {link} failed: {error}"));
            }
            _ => {}
        }
    }
    make_tmp(warnings);
    // As in Docker, any user of the box may ping, and may listen on low ports.
    for (setting, value) in [("ping_group_range", "0 2147483647"), ("ip_unprivileged_port_start", "0")] {
        if let Err(error) = std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value) {
            warnings.push(format!("setting {setting} failed: {error}"));
        }
    }
    Ok(())
}

fn mount_one(mount: &KernelMount) -> io::Result<()> {
    let attempt = || rustix::mount::mount(mount.kind, mount.target, mount.kind, mount.flags, mount.options);
    match attempt() {
        Err(Errno::NOENT) => {
            make_directories(mount.target)?;
            attempt()?;
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

fn make_directories(path: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn make_tmp(warnings: &mut Vec<String>) {
    let made = match std::fs::create_dir("/tmp") {
        Ok(()) => std::fs::set_permissions("/tmp", std::fs::Permissions::from_mode(0o1777)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = made {
        warnings.push(format!("creating /tmp failed: {error}"));
    }
}

/// Something that the box was given to mount.
enum GivenMount<'a> {
    Share(&'a ShareMount),
    Tmpfs(&'a TmpfsMount),
    Volume(&'a DiskMount),
}

impl GivenMount<'_> {
    fn target(&self) -> &str {
        match self {
            Self::Share(share) => share.path(),
            Self::Tmpfs(tmpfs) => &tmpfs.target,
            Self::Volume(volume) => &volume.target,
        }
    }
}

/// Makes the directories that the image has its volumes in, where it lacks them: their files are the box's own.
pub(super) fn make_volume_paths(config: &BootConfig, warnings: &mut Vec<String>) {
    for path in &config.volume_paths {
        if let Err(error) = make_directories(path) {
            warnings.push(format!("making the image's volume {path} failed: {error}"));
        }
    }
}

/// Mounts the host's directories, named volumes and the filesystems in memory, a path before those below it, so that none hides another,
/// and bounds `/dev/shm`.
///
/// # Errors
/// Always fatal, because the box would otherwise write to its own disk what the user meant for the host or for memory.
pub(super) fn mount_given(config: &BootConfig) -> Result<(), String> {
    if let Some(size) = config.shm_size {
        rustix::mount::mount_remount("/dev/shm", PLAIN, &*format!("mode=1777,size={size}"))
            .map_err(|error| format!("bounding /dev/shm to {size} bytes failed: {error}"))?;
    }
    let shares = config.mounts.iter().map(GivenMount::Share);
    let volumes = config.disks.iter().map(GivenMount::Volume);
    let mut given: Vec<_> = shares.chain(volumes).chain(config.tmpfs.iter().map(GivenMount::Tmpfs)).collect();
    given.sort_by_key(|given| given.target().split('/').count());
    given.iter().try_for_each(|given| match given {
        GivenMount::Share(share) => mount_share(share),
        GivenMount::Tmpfs(tmpfs) => mount_tmpfs(tmpfs),
        GivenMount::Volume(volume) => volumes::mount(volume),
    })
}

fn mount_tmpfs(tmpfs: &TmpfsMount) -> Result<(), String> {
    let describe =
        |error: &dyn std::fmt::Display| format!("mounting a tmpfs on {} failed: {error}", tmpfs.target);
    if !tmpfs.target.starts_with('/') {
        return Err(describe(&"the target is not an absolute path"));
    }
    make_directories(&tmpfs.target).map_err(|e| describe(&e))?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, tmpfs.read_only);
    flags.set(MountFlags::NOEXEC, !tmpfs.exec);
    flags.set(MountFlags::NOSUID, !tmpfs.suid);
    flags.set(MountFlags::NODEV, !tmpfs.dev);
    let TmpfsMount { mode, uid, gid, .. } = tmpfs;
    let size = tmpfs.size.map(|size| format!(",size={size}")).unwrap_or_default();
    let options =
        CString::new(format!("mode={mode:o},uid={uid},gid={gid}{size}")).map_err(|e| describe(&e))?;
    rustix::mount::mount("tmpfs", &*tmpfs.target, "tmpfs", flags, Some(&*options)).map_err(|e| describe(&e))
}

fn mount_share(share: &ShareMount) -> Result<(), String> {
    let what = if share.file.is_some() { "file" } else { "directory" };
    let describe = |error: &dyn std::fmt::Display| {
        format!("mounting the host {what} {} on {} failed: {error}", share.tag, share.path())
    };
    if !share.path().starts_with('/') {
        return Err(describe(&"the target is not an absolute path"));
    }
    let mut flags = MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, share.read_only);
    if let Some(target) = &share.file {
        return mount_file(&share.tag, target, flags).map_err(|e| describe(&e));
    }
    make_directories(&share.target).map_err(|e| describe(&e))?;
    rustix::mount::mount(&*share.tag, &*share.target, "virtiofs", flags, None).map_err(|e| describe(&e))
}

/// Binds the one file of the virtiofs `tag` to `target`. The directory that it lies in is visible meanwhile only.
fn mount_file(tag: &str, target: &str, flags: MountFlags) -> io::Result<()> {
    const STAGE: &str = "/dev/.boxlite-file";
    // The image's own entry there stays as it is below; a directory makes the binding fail.
    if !Path::new(target).exists() {
        if let Some(directory) = Path::new(target).parent().and_then(Path::to_str) {
            make_directories(directory)?;
        }
        std::fs::write(target, "")?;
    }
    make_directories(STAGE)?;
    rustix::mount::mount(tag, STAGE, "virtiofs", flags, None)?;
    let bound = rustix::mount::mount_bind(format!("{STAGE}/{SHARED_FILE}"), target);
    rustix::mount::unmount(STAGE, UnmountFlags::DETACH)?;
    std::fs::remove_dir(STAGE)?;
    Ok(bound?)
}

//! Namespaces, and the only files that are in the mount namespace.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::thread::UnshareFlags;

use super::opener::HeldOpens;
use super::seal;
use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::report::JailReport;
use crate::spec::{JailIdentity, JailSpec, NetworkScope, Opening, View};

/// A directory that every Linux host has: the jail's root is mounted there for a moment, out of everybody else's sight.
const SCAFFOLD: &str = "/proc";

/// Leaves the host's namespaces for fresh ones; a process that is forked from now on is in the new process namespace.
pub(super) fn leave_host(spec: &JailSpec, report: &mut JailReport) -> Result<()> {
    let mut flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    let mut words = String::from("mount, pid, ipc, uts, cgroup");
    if spec.network == NetworkScope::None {
        flags |= UnshareFlags::NEWNET;
        words.push_str(", net");
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if spec.identity == JailIdentity::Own {
        flags |= UnshareFlags::NEWUSER;
        words.push_str(", user");
    }
    // SAFETY: this process has one thread, so nobody shares what is left here; the file table is not among it.
    #[allow(unsafe_code)]
    let left = unsafe { rustix::thread::unshare_unsafe(flags) };
    left.doing(format_args!("making the namespaces {words}"))?;
    if spec.identity == JailIdentity::Own {
        map_alone(uid, gid)?;
    }
    rustix::system::sethostname(b"boxlite").doing("naming the jail")?;
    report.in_force("namespaces", words);
    match spec.network {
        NetworkScope::None => report.in_force("network", "none"),
        NetworkScope::Host => report
            .missing_because("network", "the program serves a network, and has its sockets in the host's"),
    }
    Ok(())
}

/// Maps the one user and the one group that this process has, and no other.
fn map_alone(uid: u32, gid: u32) -> Result<()> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(&file, text.as_bytes()))
            .doing(format_args!("writing {path}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))?;
    Ok(())
}

/// Makes what the view of `spec` names and the openings that are only read the only files, read-only, and leaves the host's
/// root for good. Returns which of the program's calls are to be held for its openings.
pub(super) fn enter_root(spec: &JailSpec, report: &mut JailReport) -> Result<HeldOpens> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing("making mounts private")?;
    let mut pieces = pieces(&spec.view)?;
    let held = match opened_for_reading(spec) {
        Some(read) => {
            pieces.others.extend(read);
            HeldOpens::Writing
        }
        None => HeldOpens::All,
    };
    let count = pieces.code.len() + pieces.others.len();
    let root = empty_root(count)?;
    rustix::mount::move_mount(&root, "", CWD, SCAFFOLD, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing("mounting the jail's root")?;
    rustix::process::fchdir(&root).doing("entering the jail's root")?;
    // The program's user passes through directories that root has made, whatever the starter's own files are to be like.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let mut made = BTreeSet::new();
    for piece in &pieces.code {
        piece.put(&root, &mut made)?;
    }
    // One call for all files of code, of which a QEMU has fifty, and one for everything.
    let fixed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    set_attributes(&root, fixed, MountReach::All).doing("restricting the jail's code")?;
    for piece in &pieces.others {
        piece.put(&root, &mut made)?;
    }
    set_attributes(&root, MountAttrFlags::MOUNT_ATTR_RDONLY, MountReach::All)
        .doing("making the jail's root read-only")?;
    rustix::process::pivot_root(".", ".").doing("entering the jail's root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing("leaving the host's root")?;
    rustix::process::chdir("/").doing("entering the jail's root")?;
    report.in_force("root", format!("an empty one with {count} files of the host, read-only"));
    Ok(held)
}

/// Something of the host, cut loose from where it was, and where it is to be.
struct Piece {
    tree: OwnedFd,
    target: PathBuf,
    is_directory: bool,
}

/// The parts of the host that the jail has.
struct Pieces {
    /// Restricted together, once they are in their places.
    code: Vec<Piece>,
    /// Data and devices, which are restricted already but for being read-only.
    others: Vec<Piece>,
}

fn pieces(view: &View) -> Result<Pieces> {
    let code = view.code.iter().map(|path| Piece::cut(path, path)).collect::<Result<_>>()?;
    let fixed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let data = fixed | MountAttrFlags::MOUNT_ATTR_NODEV;
    let data = view.data.iter().map(|bound| (&bound.source, &bound.target, data));
    // A device is written to, which is not writing to the filesystem that its node is on.
    let devices = view.devices.iter().map(|path| (path, path, fixed));
    let restricted = |(source, target, attributes): (&PathBuf, &PathBuf, MountAttrFlags)| {
        let piece = Piece::cut(source, target)?;
        set_attributes(&piece.tree, attributes, MountReach::One)
            .doing(format_args!("giving the jail {}", source.display()))?;
        Ok(piece)
    };
    Ok(Pieces { code, others: data.chain(devices).map(restricted).collect::<Result<_>>()? })
}

/// The openings that are only read, as files for the root; `None` where one of them cannot be such a file: the program's user
/// may not read it, or it has lost its name.
fn opened_for_reading(spec: &JailSpec) -> Option<Vec<Piece>> {
    let piece = |opening: &Opening| {
        let file = seal::borrow(opening.descriptor).ok()?;
        let found = rustix::fs::fstat(file).ok()?;
        let of_its_user = match spec.identity {
            JailIdentity::Own => {
                rustix::process::geteuid().as_raw() == found.st_uid && found.st_mode & 0o400 != 0
            }
            JailIdentity::Reserved(_) => false,
        };
        if !FileType::from_raw_mode(found.st_mode).is_file() || found.st_mode & 0o004 == 0 && !of_its_user {
            return None;
        }
        let name = std::fs::read_link(format!("/proc/self/fd/{}", opening.descriptor)).ok()?;
        let piece = Piece::cut(&name, &opening.path).ok()?;
        let named = rustix::fs::fstat(&piece.tree).ok()?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        set_attributes(&piece.tree, attributes, MountReach::One).ok()?;
        ((named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)).then_some(piece)
    };
    spec.openings.iter().filter(|opening| opening.reads_only).map(piece).collect()
}

impl Piece {
    fn cut(source: &Path, target: &Path) -> Result<Self> {
        let doing = || format!("giving the jail {}", source.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, source, flags).doing(doing())?;
        let kind = rustix::fs::fstat(&tree).doing(doing())?.st_mode;
        let is_directory = FileType::from_raw_mode(kind).is_dir();
        Ok(Self { tree, target: target.to_owned(), is_directory })
    }

    /// Mounts it at its place below `root`, where that is made; `made` are the directories that are there.
    #[allow(clippy::disallowed_methods, reason = "the jail's root is in memory and no durable file")]
    fn put(&self, root: &OwnedFd, made: &mut BTreeSet<PathBuf>) -> Result<()> {
        let doing = || format!("giving the jail {}", self.target.display());
        let below = self.target.strip_prefix("/").map_err(|_| {
            JailError::new(format!("{} is not an absolute path in a jail", self.target.display()))
        })?;
        let mode = Mode::from_raw_mode(0o755);
        let mut directory = PathBuf::new();
        let parents = if self.is_directory { Some(below) } else { below.parent() };
        for name in parents.into_iter().flat_map(Path::components) {
            directory.push(name);
            if !made.insert(directory.clone()) {
                continue;
            }
            match rustix::fs::mkdirat(root, &directory, mode) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).doing(doing()),
            }
        }
        if !self.is_directory {
            let mode = Mode::from_raw_mode(0o444);
            match rustix::fs::mknodat(root, below, FileType::RegularFile, mode, 0) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).doing(doing()),
            }
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.tree, "", root, below, flags).doing(doing())
    }
}

/// A filesystem in memory with room for the places of `pieces` mounts, and no file in it that could be executed.
fn empty_root(pieces: usize) -> Result<OwnedFd> {
    let doing = "making the jail's root";
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    let context = context.as_fd();
    rustix::mount::fsconfig_set_string(context, "mode", "0755").doing(doing)?;
    rustix::mount::fsconfig_set_string(context, "size", "64k").doing(doing)?;
    // Each place has at most some directories of its own above it.
    rustix::mount::fsconfig_set_string(context, "nr_inodes", (pieces * 8 + 16).to_string()).doing(doing)?;
    rustix::mount::fsconfig_create(context).doing(doing)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Which mounts a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MountReach {
    /// The one that is named.
    One,
    /// That and all below it.
    All,
}

/// Adds `attributes` to those of the mount `mount` and takes none away.
fn set_attributes(mount: &OwnedFd, attributes: MountAttrFlags, reach: MountReach) -> std::io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let recursive = if reach == MountReach::All { AT_RECURSIVE } else { 0 };
    let wanted = MountAttributes { set: u64::from(attributes.bits()), ..MountAttributes::default() };
    let empty = CString::default();
    // SAFETY: the path is a string, and the size is that of the structure, which lives as long as the call.
    #[allow(unsafe_code)]
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(&wanted),
            size_of::<MountAttributes>(),
        )
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// `path` for a system call.
pub(super) fn c_string(path: impl AsRef<std::ffi::OsStr>) -> Result<CString> {
    let path = path.as_ref();
    CString::new(path.as_bytes()).map_err(|_| JailError::new(format!("{} has a zero byte", path.display())))
}

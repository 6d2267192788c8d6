//! A directory with one file in it: what a single file is served from.
//!
//! A filesystem in memory is mounted in a mount namespace of the daemon's own, the file is bound to a name in it, and
//! then nothing can be made there any more. That directory is what the daemon's sandbox makes its root, so that whatever
//! a guest asks for, nothing but the file is there. The binding holds the file itself and not its name: it is the same
//! file in the box when the name on the host means another one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

/// The directory that is covered; every host has it.
const STAGE: &str = "/tmp";

/// The file's name in the directory; the guest agent knows it too.
const NAME: &str = "file";

/// Makes the directory with the file at `path` in it, which must be the one that `meant` holds; the process has
/// namespaces of its own then, and capabilities in them. Ids `inside` are those of `outside` in the second, if it is there.
pub(crate) fn stage(path: &Path, meant: &File, user: Option<(u32, u32)>) -> io::Result<PathBuf> {
    let mut namespaces = UnshareFlags::NEWNS;
    if user.is_some() {
        namespaces |= UnshareFlags::NEWUSER;
    }
    // SAFETY: this process has one thread, which is surprised by nothing.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(namespaces)?;
    }
    if let Some((uid, gid)) = user {
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ] {
            let opened = File::options().write(true).open(format!("/proc/self/{file}"))?;
            rustix::io::write(&opened, text.as_bytes())?;
        }
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    let (found, wanted) = (file.metadata()?, meant.metadata()?);
    if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) {
        return Err(io::Error::other("the file was replaced while the box started"));
    }
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let plain = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("boxlite", STAGE, "tmpfs", plain, Some(c"mode=755,size=64k"))?;
    let name = Path::new(STAGE).join(NAME);
    let making = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    drop(rustix::fs::openat(CWD, &name, making, Mode::from(0o600))?);
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", file.as_raw_fd()), &name)?;
    rustix::mount::mount_remount(STAGE, plain | MountFlags::RDONLY, c"")?;
    Ok(STAGE.into())
}

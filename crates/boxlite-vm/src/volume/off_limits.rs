//! The places that no volume may show to a box.
//!
//! - The home: the directory, what contains it, and what lies in it. A guest could change other boxes there.
//! - Where links of the home lead: its `bases`, for example, may lie on another disk.
//! - The programs and the guest kernel that boxes run on, unless the volume is read-only.
//! - The kernel's own filesystems and the host's devices, through which root in a guest would reach the host's kernel.
//!
//! Directories are compared by path, and by device and inode, because bind mounts give them other names.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boxlite_types::{Error, ErrorCause, Result};
use serde::{Deserialize, Serialize};

use super::mounts::MountTable;

/// Filesystems that show the kernel instead of files.
const KERNEL_FILESYSTEMS: &[&str] = &[
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Directories and files of the host that no volume may show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffLimits {
    /// The home.
    pub home: PathBuf,
    /// The files that boxes run on: programs, kernel, agent. They may be read, and never written to.
    pub assets: Vec<PathBuf>,
}

impl OffLimits {
    /// Refuses a directory that shows what it must not.
    pub(super) fn refuse(&self, source: &Path, read_only: bool) -> Result<()> {
        let mounts = MountTable::read();
        refuse_kernel(source, &mounts)?;
        for part in parts(&self.home) {
            if let Some(relation) = relation(source, &part, &mounts) {
                return Err(refused(source, relation, "boxlite's home", &self.home, &part));
            }
        }
        if read_only {
            return Ok(());
        }
        for asset in &self.assets {
            for part in parts(asset) {
                if let Some(relation) = relation(source, &part, &mounts) {
                    let error = refused(source, relation, "a part of boxlite", asset, &part);
                    return Err(error.while_doing("sharing it writable (`:ro` would be accepted)"));
                }
            }
        }
        Ok(())
    }
}

fn refused(source: &Path, relation: &str, what: &str, named: &Path, part: &Path) -> Error {
    let detail =
        if part == named { String::new() } else { format!(", which has a part in {}", part.display()) };
    let (shown, named) = (source.display(), named.display());
    let message = format!("the volume's directory {shown} {relation} {what} {named}{detail}");
    Error::invalid(message).about(ErrorCause::Volume).at(source)
}

/// Refuses the kernel's filesystems, wherever they are mounted, and the host's devices.
fn refuse_kernel(source: &Path, mounts: &MountTable) -> Result<()> {
    let is_kernels = |filesystem: &str| KERNEL_FILESYSTEMS.contains(&filesystem);
    let shown = mounts.above(source).into_iter().chain(mounts.below(source));
    if let Some(mount) = shown.into_iter().find(|mount| is_kernels(&mount.filesystem)) {
        let message = format!(
            "the volume's directory {} shows the {} filesystem at {}, through which a box would reach the host's kernel",
            source.display(),
            mount.filesystem,
            mount.point.display()
        );
        return Err(Error::invalid(message).about(ErrorCause::Volume).at(source));
    }
    // In a container `/dev` is an ordinary filesystem; `/dev/shm` is memory for everybody.
    if !source.starts_with("/dev/shm") && lies_in(source, Path::new("/dev")) {
        let message = format!("the volume's directory {} shows the host's devices", source.display());
        return Err(Error::invalid(message).about(ErrorCause::Volume).at(source));
    }
    Ok(())
}

/// Returns `path` and where the links among its entries, and among those of its directories, lead.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts = vec![path.to_owned()];
    parts.extend(std::fs::canonicalize(path).ok().filter(|found| found != path));
    let entries = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let links = entries(path).flat_map(|entry| {
        let below = entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path());
        below.into_iter().flat_map(|below| entries(&below).collect::<Vec<_>>()).chain([entry])
    });
    let links = links.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    parts.extend(links.filter_map(|entry| std::fs::canonicalize(entry.path()).ok()));
    parts
}

fn relation(source: &Path, other: &Path, mounts: &MountTable) -> Option<&'static str> {
    if source.starts_with(other) || lies_in(source, other) {
        Some("lies in")
    } else if other.starts_with(source) || lies_in(other, source) || mounts.shows(source, other) {
        Some("contains")
    } else {
        None
    }
}

/// Tells whether `path` or a directory above it is the same as `other`, whatever both are called.
fn lies_in(path: &Path, other: &Path) -> bool {
    let Some(other) = identity(other) else { return false };
    path.ancestors().any(|ancestor| identity(ancestor) == Some(other))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use boxlite_types::ErrorKind;

    fn off_limits(root: &Path) -> OffLimits {
        for directory in
            ["home/boxes", "home/images", "elsewhere/bases", "elsewhere/layers", "assets/kernel", "free"]
        {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        symlink(root.join("elsewhere/bases"), root.join("home/bases")).unwrap();
        symlink(root.join("elsewhere/layers"), root.join("home/images/disk-images")).unwrap();
        OffLimits { home: root.join("home"), assets: vec![root.join("assets/kernel")] }
    }

    /// Mutation tried: `parts` without the links, which accepts the first four.
    #[test]
    fn what_links_of_the_home_lead_to_is_part_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let off_limits = off_limits(&root);
        for directory in
            ["elsewhere/bases", "elsewhere/layers", "elsewhere", "elsewhere/../elsewhere", "home/boxes"]
        {
            let error = off_limits.refuse(&root.join(directory), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{directory}: {error}");
            assert!(error.to_string().contains("boxlite's home"), "{error}");
        }
        off_limits.refuse(&root.join("free"), false).unwrap();
    }

    /// Mutation tried: assets left out.
    #[test]
    fn what_boxes_run_on_can_be_read_and_not_written_to() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let off_limits = off_limits(&root);
        for directory in ["assets", "assets/kernel"] {
            off_limits.refuse(&root.join(directory), true).unwrap();
            let error = off_limits.refuse(&root.join(directory), false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{directory}: {error}");
            assert!(error.chain().to_string().contains(":ro"), "{}", error.chain());
        }
    }

    /// Mutation tried: `refuse_kernel` left out.
    #[test]
    fn the_kernels_filesystems_and_the_devices_are_refused() {
        let off_limits = OffLimits { home: "/nonexistent".into(), assets: Vec::new() };
        for directory in ["/proc", "/proc/sys", "/proc/self/fd", "/sys", "/sys/kernel", "/dev"] {
            for read_only in [false, true] {
                let error = off_limits.refuse(Path::new(directory), read_only).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{directory}: {error}");
            }
        }
    }

    /// Needs the right to mount. Mutation tried: `mounts.below` left out.
    #[test]
    fn the_kernels_filesystems_are_refused_below_a_directory_and_under_other_names() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let off_limits = off_limits(&root);
        let inner = root.join("free/inner");
        std::fs::create_dir(&inner).unwrap();
        let tries = || [root.join("free"), inner.clone()].map(|path| off_limits.refuse(&path, true).is_err());
        if mount("proc", &inner, "proc", MountFlags::empty(), None).is_err() {
            eprintln!("skipped: this user may not mount");
            return;
        }
        let found = tries();
        unmount(&inner, UnmountFlags::DETACH).unwrap();
        assert_eq!(found, [true, true], "proc");
        mount_bind("/dev", &inner).unwrap();
        let found = tries();
        unmount(&inner, UnmountFlags::DETACH).unwrap();
        assert!(found[1], "/dev");
        assert_eq!(tries(), [false, false]);
    }
}

//! Small filesystems that a test may fill to the brim.

use std::path::Path;
use std::process::Command;

use crate::oracle;

/// A filesystem of the test's own, unmounted when dropped.
#[derive(Debug)]
pub struct SmallFilesystem(tempfile::TempDir);

impl SmallFilesystem {
    /// Mounts a tmpfs with these mount options (`size=64m,nr_inodes=100`); `None`, after [`oracle::skip`], where this
    /// process may not mount.
    #[track_caller]
    pub fn tmpfs(options: &str) -> Option<Self> {
        Self::mounted(Command::new("mount").args(["-t", "tmpfs", "-o", options, "boxlite-test"]))
    }

    /// Makes an ext4 of `bytes` with these further arguments of `mkfs.ext4` in a sparse file, and loop-mounts it; `None`,
    /// after [`oracle::skip`], where this process may not mount.
    #[track_caller]
    pub fn ext4(bytes: u64, arguments: &[&str]) -> Option<Self> {
        if !oracle::require("mkfs.ext4") {
            return None;
        }
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-F"]).args(arguments).arg(image.path()).output().unwrap();
        assert!(made.status.success(), "mkfs.ext4 {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
        // The loop device keeps the file; it needs no name any more.
        Self::mounted(Command::new("mount").args(["-o", "loop"]).arg(image.path()))
    }

    #[track_caller]
    fn mounted(mount: &mut Command) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let output = mount.arg(directory.path()).output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            oracle::skip(format_args!("mounting a small filesystem needs root ({})", why.trim()));
            return None;
        }
        Some(Self(directory))
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        // Lazily: for an instant a process that another test starts has a copy of each of our descriptors.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[cfg(test)]
mod tests {
    use super::SmallFilesystem;

    #[test]
    fn a_small_filesystem_is_unmounted_and_removed_at_the_end() {
        let Some(small) = SmallFilesystem::tmpfs("size=64k") else { return };
        let path = small.path().to_owned();
        let is_mounted =
            || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(path.to_str().unwrap());
        assert!(is_mounted());
        assert!(std::fs::write(path.join("large"), vec![1; 128 << 10]).is_err());
        drop(small);
        assert!(!is_mounted() && !path.exists());
    }
}

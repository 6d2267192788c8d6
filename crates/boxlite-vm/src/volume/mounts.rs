//! The mounts of this host.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mounts by place; none where the list cannot be read.
pub(super) struct MountTable(Vec<MountPoint>);

/// A line of `/proc/self/mountinfo`.
pub(super) struct MountPoint {
    /// Major and minor number.
    device: String,
    /// The directory of the filesystem that is mounted.
    root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) filesystem: String,
}

impl MountTable {
    pub(super) fn read() -> Self {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self(text.lines().filter_map(MountPoint::parse).collect())
    }

    /// Returns the mount that shows `path`.
    pub(super) fn above(&self, path: &Path) -> Option<&MountPoint> {
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        // Of several mounts at one place the last one is seen.
        above.max_by_key(|mount| mount.point.as_os_str().len())
    }

    /// Returns the mounts at `path` and below it.
    pub(super) fn below(&self, path: &Path) -> impl Iterator<Item = &MountPoint> {
        self.0.iter().filter(move |mount| mount.point.starts_with(path))
    }

    /// Tells whether a mount at `source`, above or below it shows `other`, a directory that contains it, or one in it.
    pub(super) fn shows(&self, source: &Path, other: &Path) -> bool {
        let Some((device, other)) = self.place_on_device(other) else { return false };
        let below = self.below(source).map(|mount| (mount.device.clone(), mount.root.clone()));
        below
            .chain(self.place_on_device(source))
            .any(|(found, path)| found == device && (path.starts_with(&other) || other.starts_with(&path)))
    }

    /// Returns the filesystem that `path` lies on, and its path from that filesystem's root.
    fn place_on_device(&self, path: &Path) -> Option<(String, PathBuf)> {
        let mount = self.above(path)?;
        let below = path.strip_prefix(&mount.point).ok()?;
        Some((mount.device.clone(), mount.root.join(below)))
    }
}

impl MountPoint {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        // Any number of optional fields ends in a hyphen.
        let filesystem = fields.skip_while(|field| *field != "-").nth(1)?.to_owned();
        Some(Self { device, root, point, filesystem })
    }
}

/// A path as the kernel lists it, with `\\040` for a space.
fn unescaped(path: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

//! The control groups that this process is in, in either version of the kernel's interface.

use std::path::{Path, PathBuf};

/// A control group that this process is in or below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnGroup {
    /// The version of the kernel's interface.
    pub(super) version: u8,
    /// Its directory.
    pub(super) directory: PathBuf,
}

/// The group of `controller` and every group above it that can be seen from here, by the texts of `/proc/self/cgroup` and
/// `/proc/self/mountinfo`. A group of version 2 may lack the controller.
pub(super) fn own_groups(controller: &str, cgroups: &str, mountinfo: &str) -> Vec<OwnGroup> {
    let mut found = Vec::new();
    for mount in mountinfo.lines().filter_map(|line| CgroupMount::parse(line, controller)) {
        let group = cgroups.lines().find_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            let ours = match mount.version {
                2 => controllers.is_empty(),
                _ => controllers.split(',').any(|name| name == controller),
            };
            ours.then_some(group)
        });
        let Some(group) = group else { continue };
        // In a container the mount may begin at this process's own group, which is named from the host's root.
        let below = Path::new(group).strip_prefix(mount.root).unwrap_or(Path::new(""));
        let directory = |group: &Path| Path::new(mount.point).join(group);
        found.extend(
            below.ancestors().map(|group| OwnGroup { version: mount.version, directory: directory(group) }),
        );
    }
    found
}

/// A mounted hierarchy.
struct CgroupMount<'a> {
    version: u8,
    /// The group that is mounted.
    root: &'a str,
    point: &'a str,
}

impl<'a> CgroupMount<'a> {
    /// Reads a line of `/proc/self/mountinfo`; `None` for other mounts, and for hierarchies of other controllers.
    fn parse(line: &'a str, controller: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = filesystem.split(' ');
        let version = match (fields.next()?, fields.nth(1)?) {
            ("cgroup2", _) => 2,
            ("cgroup", options) if options.split(',').any(|option| option == controller) => 1,
            _ => return None,
        };
        Some(Self { version, root, point })
    }
}

//! The control groups that this process is in, in either version of the kernel's interface.

use std::path::{Path, PathBuf};

/// The texts by which the kernel names the control groups of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnGroups {
    /// `/proc/self/cgroup`.
    pub(super) cgroups: String,
    /// `/proc/self/mountinfo`.
    pub(super) mountinfo: String,
}

/// A control group that a process is in or below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnGroup {
    /// The version of the kernel's interface.
    pub(super) version: u8,
    /// Its directory.
    pub(super) directory: PathBuf,
}

impl OwnGroup {
    /// Reads its file `unified`, or `legacy` in version 1 of the interface; `None` where it has no such file.
    pub(super) fn read(&self, unified: &str, legacy: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.join(if self.version == 2 { unified } else { legacy })).ok()
    }
}

impl OwnGroups {
    /// Those of this process; none where the kernel names none.
    pub(super) fn of_this_process() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self { cgroups: read("/proc/self/cgroup"), mountinfo: read("/proc/self/mountinfo") }
    }

    /// The group of `controller` and every group above it that can be seen from here, the innermost first. A group of version 2
    /// may lack the controller.
    pub(super) fn of(&self, controller: &str) -> Vec<OwnGroup> {
        let mut found = Vec::new();
        for mount in self.mountinfo.lines().filter_map(|line| CgroupMount::parse(line, controller)) {
            let group = self.cgroups.lines().find_map(|line| {
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
            let point = Path::new(mount.point);
            found.extend(below.ancestors().map(|group| OwnGroup {
                version: mount.version,
                directory: if group.as_os_str().is_empty() { point.to_owned() } else { point.join(group) },
            }));
        }
        found
    }
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

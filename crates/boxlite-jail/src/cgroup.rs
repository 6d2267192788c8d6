//! A control group for each box, in either version of the kernel's interface.
//!
//! Groups lie in `boxlite/<name>` below the root of each hierarchy, as those of container engines do: a box outlives the
//! session that started it, and so must its group. The jail's stage stays outside of the group, puts the two processes
//! of the jail into it and removes it once both have gone. A box's jails (QEMU's and its network's) share one group, which
//! goes with the last of them, or with the box's shim, which is in it too.
//!
//! Where the controllers are those of version 1, a group of version 2 without any is made beside theirs: it has `cgroup.kill`.
//!
//! # Locking
//!
//! Each stage holds a shared lock on its group's directory, and a group is removed under an exclusive one: by a stage at its
//! end, once it has let go of its own, and by any later start, once its program runs, for stages that were killed. Neither is
//! waited for: a start without its group says so and goes on.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::report::{JailReport, MeasureState};
use crate::spec::CgroupSpec;

/// The directory of all groups.
const PARENT: &str = "boxlite";

/// The file of a group by which all of its processes are ended, and the measure.
const KILL_FILE: &str = "cgroup.kill";

/// One processor's time in microseconds of each period.
const CPU_PERIOD: u64 = 100_000;

/// The measure of the controller `cpu`.
const PROCESSOR_LIMIT: &str = "processor limit";

/// How often a group is made again that somebody else swept away in between, or is about to.
const ATTEMPTS: usize = 100;

/// Between two attempts at a group that somebody else is about to sweep away, which takes microseconds.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(1);

/// The control group of one box, in one or several hierarchies.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    groups: Vec<HierarchyGroup>,
}

/// The group in one hierarchy.
#[derive(Debug)]
struct HierarchyGroup {
    /// The directory of all groups: to remove this one when its path is out of reach.
    parent: OwnedFd,
    /// The directory itself, locked while this jail lives.
    directory: OwnedFd,
    /// The file to which a process writes `0` in order to join.
    entrance: File,
    version: Version,
    /// This jail has made it, and not another one of the box.
    is_new: bool,
}

/// A version of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A thread that joins by `tasks` waits for nobody.
    Legacy,
    /// A process joins by `cgroup.procs`, for which the kernel waits until every processor has passed a quiet state: some
    /// ten milliseconds. One that is born inside does not wait.
    Unified,
}

impl Version {
    /// The file by which a process of one thread joins.
    fn entrance(self) -> &'static str {
        match self {
            Self::Legacy => "tasks",
            Self::Unified => "cgroup.procs",
        }
    }
}

/// One controller and what is written to its files.
struct Controller {
    name: &'static str,
    measure: &'static str,
    /// Files of version 2 with their contents.
    unified: Vec<(&'static str, String)>,
    /// Files of version 1.
    legacy: Vec<(&'static str, String)>,
    words: String,
}

/// The share of processor time among the boxes while there is too little for all: the kernel's default for each whole
/// processor that a box may use, so that a virtual processor of a small box gets as much as one of a large box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessorWeight {
    /// `cpu.weight` of version 2, whose default is 100.
    unified: u32,
    /// `cpu.shares` of version 1, whose default is 1024.
    legacy: u64,
}

impl ProcessorWeight {
    /// The weight of a box with that much processor time, within the kernel's bounds.
    fn of(cpu_percent: u32) -> Self {
        Self {
            unified: cpu_percent.clamp(1, 10_000),
            legacy: (u64::from(cpu_percent) * 1024 / 100).clamp(2, 1 << 18),
        }
    }
}

fn controllers(spec: &CgroupSpec) -> [Controller; 3] {
    let quota = u64::from(spec.cpu_percent) * CPU_PERIOD / 100;
    let weight = ProcessorWeight::of(spec.cpu_percent);
    [
        Controller {
            name: "memory",
            measure: "memory limit",
            unified: vec![("memory.max", spec.memory_max.to_string()), ("memory.oom.group", "1".into())],
            legacy: vec![("memory.limit_in_bytes", spec.memory_max.to_string())],
            words: format!("{} MiB", spec.memory_max >> 20),
        },
        Controller {
            name: "pids",
            measure: "task limit",
            unified: vec![("pids.max", spec.tasks_max.to_string())],
            legacy: vec![("pids.max", spec.tasks_max.to_string())],
            words: format!("{} threads", spec.tasks_max),
        },
        Controller {
            name: "cpu",
            measure: PROCESSOR_LIMIT,
            unified: vec![
                ("cpu.max", format!("{quota} {CPU_PERIOD}")),
                ("cpu.weight", weight.unified.to_string()),
            ],
            legacy: vec![
                ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
                ("cpu.shares", weight.legacy.to_string()),
            ],
            words: format!("{} % of one processor", spec.cpu_percent),
        },
    ]
}

impl Cgroup {
    /// Makes the group of `spec` wherever this host lets it, and reports each of its limits.
    pub(crate) fn make(spec: &CgroupSpec, report: &mut JailReport) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let hierarchies = Hierarchies::of(&mounts);
        let mut group = Self { name: spec.name.clone(), groups: Vec::new() };
        if spec.name.is_empty() || spec.name.contains('/') || spec.name.starts_with('.') {
            report.missing_because("control group", format!("{:?} is not a name for one", spec.name));
            return group;
        }
        let mut unified: Option<Result<PathBuf, String>> = None;
        for controller in controllers(spec) {
            let legacy = hierarchies.legacy.iter().find(|(name, _)| name == controller.name);
            let made = match (legacy, &hierarchies.unified) {
                (Some((_, root)), _) => group.make_legacy(root, &controller),
                (None, Some(root)) => {
                    let directory = unified.get_or_insert_with(|| group.make_unified(root)).clone();
                    directory.and_then(|directory| {
                        write_all(&directory, &controller.unified).map_err(|error| {
                            format!("the controller {} is not to be had here: {error}", controller.name)
                        })
                    })
                }
                (None, None) => Err("no control groups are mounted".into()),
            };
            match made {
                Ok(()) => report.in_force(controller.measure, controller.words),
                Err(why) => report.missing_because(controller.measure, why),
            }
        }
        // One file of version 2 ends all processes of the box at once, whichever version has the controllers.
        let switch = match &hierarchies.unified {
            Some(root) => {
                unified.unwrap_or_else(|| group.make_unified(root)).map(|group| group.join(KILL_FILE))
            }
            None => Err("this host has no control groups of version 2".into()),
        };
        match switch {
            Ok(switch) if switch.exists() => report.in_force(KILL_FILE, switch.display().to_string()),
            Ok(_) => report.missing_because(KILL_FILE, "this kernel does not have it"),
            Err(why) => report.missing_because(KILL_FILE, why),
        }
        group
    }

    /// Puts the calling process, which has one thread, into the group; one that was born in the group of version 2 is
    /// there already.
    pub(crate) fn join(&self, is_born_inside: bool) -> io::Result<()> {
        let mut groups =
            self.groups.iter().filter(|group| !is_born_inside || group.version == Version::Legacy);
        groups.try_for_each(|group| (&group.entrance).write_all(b"0"))
    }

    /// The group of version 2, which a process can be born in.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.groups
            .iter()
            .find(|group| group.version == Version::Unified)
            .map(|group| group.directory.as_fd())
    }

    /// The descriptors through which it is joined and removed.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.groups.iter().flat_map(|group| {
            [group.parent.as_raw_fd(), group.directory.as_raw_fd(), group.entrance.as_raw_fd()]
        })
    }

    /// Removes the groups of boxes whose stage was killed: nobody holds their lock, and nobody is in them. It looks at the group
    /// of every box, so of the jails of one box the first does it, and no box waits for it.
    pub(crate) fn sweep(&self) {
        for HierarchyGroup { parent, .. } in self.groups.iter().filter(|group| group.is_new) {
            for entry in rustix::fs::Dir::read_from(parent).into_iter().flatten().flatten() {
                let is_own = entry.file_name().to_bytes() == self.name.as_bytes();
                if entry.file_type().is_dir() && !is_own && !entry.file_name().to_bytes().starts_with(b".") {
                    remove_unused(parent, entry.file_name());
                }
            }
        }
    }

    /// Removes the group, which no process of this jail is in any more, unless another jail of the box is in it.
    pub(crate) fn remove(&self) {
        for group in &self.groups {
            let _ = rustix::fs::flock(&group.directory, FlockOperation::Unlock);
            remove_unused(&group.parent, &self.name);
        }
    }

    fn make_legacy(&mut self, root: &Path, controller: &Controller) -> Result<(), String> {
        let directory = self.directory(root, Version::Legacy).map_err(|error| cannot_make(root, &error))?;
        write_all(&directory, &controller.legacy).map_err(|error| cannot_make(&directory, &error))
    }

    fn make_unified(&mut self, root: &Path) -> Result<PathBuf, String> {
        let parent = root.join(PARENT);
        make_directory(&parent).map_err(|error| cannot_make(root, &error))?;
        for directory in [root, &parent] {
            pass_on_controllers(directory);
        }
        self.directory(root, Version::Unified).map_err(|error| cannot_make(root, &error))
    }

    /// The directory of this group below `root`, made if need be and locked.
    #[allow(clippy::disallowed_methods, reason = "a control group's directory is no durable file")]
    fn directory(&mut self, root: &Path, version: Version) -> io::Result<PathBuf> {
        let parent_path = root.join(PARENT);
        make_directory(&parent_path)?;
        let parent = open_directory(CWD, &parent_path)?;
        for _ in 0..ATTEMPTS {
            let is_new = match rustix::fs::mkdirat(&parent, &self.name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            // Somebody's sweep may take it for a dead one's until it is locked.
            let Ok(directory) = open_directory(&parent, &self.name) else { continue };
            // A process that has it exclusively is about to remove it, or runs a box of an earlier version with the same name.
            if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared).is_err() {
                std::thread::sleep(ATTEMPT_INTERVAL);
                continue;
            }
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            if let Ok(entrance) = rustix::fs::openat(&directory, version.entrance(), flags, Mode::empty()) {
                self.groups.push(HierarchyGroup {
                    parent,
                    directory,
                    entrance: File::from(entrance),
                    version,
                    is_new,
                });
                return Ok(parent_path.join(&self.name));
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// Puts `process` into the group `name` of every hierarchy that has one, beside those that run in it.
///
/// # Errors
/// The kernel's, for a process that has ended or that the caller may not move.
pub fn adopt(name: &str, process: u32) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let hierarchies = Hierarchies::of(&mounts);
    let roots = hierarchies.legacy.iter().map(|(_, root)| root).chain(&hierarchies.unified);
    for root in roots {
        match write(&root.join(PARENT).join(name).join("cgroup.procs"), &process.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether a group of this host bounds processor time, found by making one and removing it again.
///
/// # Errors
/// Why it does not, in words for people.
pub fn bounds_processors() -> Result<(), String> {
    let mut report = JailReport::default();
    let spec = CgroupSpec::of_box(&format!("probe-cpu-{}", std::process::id()), 1 << 30, 1);
    Cgroup::make(&spec, &mut report).remove();
    match report.state(PROCESSOR_LIMIT) {
        Some(MeasureState::InForce(_)) => Ok(()),
        Some(MeasureState::Missing(why)) => Err(why.clone()),
        None => Err("no control group could be made".into()),
    }
}

/// Removes the group `name` from every hierarchy where nobody is in it.
pub fn remove(name: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = Hierarchies::of(&mounts);
    for root in hierarchies.legacy.iter().map(|(_, root)| root).chain(&hierarchies.unified) {
        if let Ok(parent) = open_directory(CWD, root.join(PARENT)) {
            remove_unused(&parent, name);
        }
    }
}

/// The directories of all groups, one in each hierarchy that has one.
pub(crate) fn parents() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = Hierarchies::of(&mounts);
    let roots = hierarchies.legacy.iter().map(|(_, root)| root).chain(&hierarchies.unified);
    roots.map(|root| root.join(PARENT)).filter(|parent| parent.is_dir()).collect()
}

/// Bytes that the kernel charges to the group `name` now, caches of files included; `None` where there is no such group.
pub fn memory_used(name: &str) -> Option<u64> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let hierarchies = Hierarchies::of(&mounts);
    let legacy = hierarchies.legacy.iter().find(|(controller, _)| controller == "memory");
    let (root, file) = match legacy {
        Some((_, root)) => (root, "memory.usage_in_bytes"),
        None => (hierarchies.unified.as_ref()?, "memory.current"),
    };
    std::fs::read_to_string(root.join(PARENT).join(name).join(file)).ok()?.trim().parse().ok()
}

fn open_directory(parent: impl AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(parent, path, flags, Mode::empty())?)
}

/// Has the groups in `directory`, which is of version 2, bounded by the controllers that are there.
///
/// Each is passed on by itself: one may be bound to a hierarchy of version 1, or not be delegated. One that is passed on already
/// is left alone: the kernel answers once every group that was removed a moment ago has gone, and all other changes wait
/// meanwhile.
fn pass_on_controllers(directory: &Path) {
    let names = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (there, passed_on) = (names("cgroup.controllers"), names("cgroup.subtree_control"));
    let has = |names: &str, name: &str| names.split_whitespace().any(|other| other == name);
    for controller in ["memory", "pids", "cpu"] {
        if has(&there, controller) && !has(&passed_on, controller) {
            let _ = write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
}

/// Removes a group that no stage has locked; the kernel refuses while anybody is in it.
#[allow(clippy::disallowed_methods, reason = "a control group's directory is no durable file")]
fn remove_unused(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) {
    if let Ok(group) = open_directory(parent, name)
        && rustix::fs::flock(&group, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    }
}

#[allow(clippy::disallowed_methods, reason = "a control group's directory is no durable file")]
fn make_directory(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn write_all(directory: &Path, files: &[(&'static str, String)]) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| write(&directory.join(name), text))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

fn cannot_make(directory: &Path, error: &io::Error) -> String {
    format!("no group can be made in {}: {error}", directory.display())
}

/// The control group hierarchies that are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    /// Version 1: a controller and where it is.
    legacy: Vec<(String, PathBuf)>,
    /// Version 2.
    unified: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads the text of `/proc/self/mounts`.
    fn of(mounts: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(place), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup2" => found.unified = found.unified.or_else(|| Some(place.into())),
                "cgroup" => {
                    let controllers =
                        options.split(',').filter(|name| ["memory", "pids", "cpu"].contains(name));
                    found.legacy.extend(controllers.map(|name| (name.to_owned(), PathBuf::from(place))));
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_beside_each_other() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = Hierarchies::of(mounts);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let legacy: Vec<_> = found.legacy.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(legacy, ["cpu", "memory"]);
        assert_eq!(Hierarchies::of(""), Hierarchies::default());
    }

    #[test]
    fn a_processor_weighs_the_same_in_every_box() {
        let weight = |percent| {
            let weight = ProcessorWeight::of(percent);
            (weight.unified, weight.legacy)
        };
        assert_eq!(weight(100), (100, 1024), "the kernel's defaults");
        assert_eq!(weight(50), (50, 512));
        assert_eq!(weight(800), (800, 8192));
        assert_eq!((weight(0), weight(u32::MAX)), ((1, 2), (10_000, 1 << 18)), "the kernel's bounds");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused_and_said() {
        for name in ["", "..", "a/b"] {
            let mut report = JailReport::default();
            let group = Cgroup::make(&CgroupSpec::of_box(name, 1 << 20, 1), &mut report);
            assert!(group.groups.is_empty() && report.missing().count() == 1, "{name:?}");
        }
    }
}

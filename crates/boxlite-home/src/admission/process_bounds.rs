//! The host's processors and memory that this process may use: an engine that runs it may have bounded both.

use boxlite_types::Result;

use super::host_memory::{whole_host_memory, within};
use super::own_group::{OwnGroup, OwnGroups};

/// The bounds of this process and its children together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessBounds {
    /// Processors that it may run on, at least 1.
    pub processors: u32,
    /// Most processor time, in hundredths of one processor, where a control group bounds it.
    pub cpu_percent: Option<u32>,
    /// Most bytes of memory, where a control group bounds it below what the host has.
    pub memory: Option<u64>,
    /// A control group of version 2 names its processors, which a process leaves behind that moves to another group.
    pub cpuset: bool,
}

impl ProcessBounds {
    /// Measures it: affinity, and the control groups from this process's to the root, of either version of the kernel's
    /// interface.
    ///
    /// # Errors
    /// `Io` when the host's memory cannot be measured.
    pub fn measure() -> Result<Self> {
        let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        Ok(Self::of(&OwnGroups::of_this_process(), affinity, whole_host_memory()?.bytes))
    }

    /// The bounds of a process in `groups`, with an affinity to so many processors, on a host with so much memory.
    fn of(groups: &OwnGroups, affinity: u32, host_memory: u64) -> Self {
        let memory = within(host_memory, groups);
        let cpusets = Cpusets::of(groups);
        Self {
            processors: cpusets.processors.map_or(affinity, |count| count.min(affinity)).max(1),
            cpu_percent: groups.of("cpu").iter().filter_map(quota_in).min(),
            memory: memory.limited_by.is_some().then_some(memory.bytes),
            cpuset: cpusets.would_be_left,
        }
    }

    /// Tells whether a control group bounds this process in what a box would leave behind that moved to a group of its own.
    pub fn come_from_groups(&self) -> bool {
        self.memory.is_some() || self.cpu_percent.is_some() || self.cpuset
    }
}

/// The sets of processors of a process's control groups. The kernel keeps every process's affinity within them, so they
/// count where they are newer than that.
#[derive(Debug, PartialEq, Eq)]
struct Cpusets {
    /// The fewest that one of them has.
    processors: Option<u32>,
    /// A set of version 2 is narrower than the one that all boxes' groups have.
    would_be_left: bool,
}

impl Cpusets {
    fn of(groups: &OwnGroups) -> Self {
        let groups = groups.of("cpuset");
        let count = |group: &OwnGroup| {
            let effective = group.read("cpuset.cpus.effective", "cpuset.effective_cpus");
            let listed = effective.or_else(|| group.read("cpuset.cpus", "cpuset.cpus"));
            count_listed(&listed?).filter(|count| *count > 0)
        };
        let unified: Vec<u32> = groups.iter().filter(|group| group.version == 2).filter_map(count).collect();
        Self {
            processors: groups.iter().filter_map(count).min(),
            would_be_left: unified.first() < unified.last(),
        }
    }
}

/// How many processors are on line here, those that this process may not use included.
pub fn online_processors() -> Option<u32> {
    count_listed(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// Counts what the kernel's list names, such as `0-3,8`.
fn count_listed(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The processor time that a group gives, in hundredths of one processor; `None` where it sets no bound.
fn quota_in(group: &OwnGroup) -> Option<u32> {
    let quota = group.read("cpu.max", "cpu.cfs_quota_us")?;
    match group.version {
        2 => quota_of(&quota),
        _ => quota_of(&format!("{} {}", quota.trim(), group.read("", "cpu.cfs_period_us")?)),
    }
}

/// Reads a quota and its period, `150000 100000`, as hundredths of one processor, at least 1; `None` where it sets no bound.
fn quota_of(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    let percent = quota.checked_mul(100)?.checked_div(period)?;
    u32::try_from(percent).ok().filter(|_| quota > 0).map(|percent| percent.max(1))
}

#[cfg(test)]
#[path = "process_bounds_tests.rs"]
mod tests;

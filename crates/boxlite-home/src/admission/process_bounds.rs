//! What of the host's processors and memory this process may use: an engine that runs it may have bounded both.

use boxlite_types::Result;

use super::host_memory::host_memory;
use super::own_group::{OwnGroup, own_groups};

/// What this process and its children may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessBounds {
    /// Processors that it may run on, at least 1.
    pub processors: u32,
    /// Most processor time, in hundredths of one processor, where a control group bounds it.
    pub cpu_percent: Option<u32>,
    /// Most bytes of memory, where a control group bounds it below what the host has.
    pub memory: Option<u64>,
}

impl ProcessBounds {
    /// Measures it: affinity, which cpusets limit too, and the control groups from this process's to the root, of either
    /// version of the kernel's interface.
    ///
    /// # Errors
    /// `Io` when the host's memory cannot be measured.
    pub fn measure() -> Result<Self> {
        let memory = host_memory()?;
        let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        // A process without control groups is bounded by none.
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let groups = own_groups("cpu", &read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        Ok(Self {
            processors: affinity.max(1),
            cpu_percent: groups.iter().filter_map(quota_in).min(),
            memory: memory.limited_by.is_some().then_some(memory.bytes),
        })
    }
}

/// The processor time that a group gives, in hundredths of one processor; `None` where it sets no bound.
fn quota_in(group: &OwnGroup) -> Option<u32> {
    let read = |name: &str| std::fs::read_to_string(group.directory.join(name)).ok();
    match group.version {
        2 => quota_of(&read("cpu.max")?),
        _ => quota_of(&format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?)),
    }
}

/// Reads a quota and its period, `150000 100000`, as hundredths of one processor; `None` where it sets no bound.
fn quota_of(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    u32::try_from(quota.checked_mul(100)?.checked_div(period)?).ok().filter(|percent| *percent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_in_both_forms_and_may_be_none() {
        assert_eq!(quota_of("150000 100000\n"), Some(150));
        assert_eq!(quota_of("max 100000\n"), None);
        assert_eq!(quota_of("-1 100000"), None);
        for garbage in ["", "5", "0 100000", "1 0", "x y"] {
            assert_eq!(quota_of(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn this_process_has_a_processor() {
        assert!(ProcessBounds::measure().unwrap().processors >= 1);
    }
}

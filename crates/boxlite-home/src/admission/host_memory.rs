//! The memory that boxes of this process share: the host's, or less where a control group bounds this process.

use boxlite_types::{Doing, Error, HostMemory, Result};

use super::own_group::OwnGroups;

/// Measures it: `MemTotal`, or the limit of a control group that this process is in or below, whichever is smaller.
///
/// # Errors
/// `Io` when the kernel does not tell.
pub(super) fn host_memory() -> Result<HostMemory> {
    Ok(within(whole_host_memory()?.bytes, &OwnGroups::of_this_process()))
}

/// So much of the host's `total` bytes as the strictest of `groups` allows.
pub(super) fn within(total: u64, groups: &OwnGroups) -> HostMemory {
    let limits = groups.of("memory").into_iter().filter_map(|group| {
        let limit = limit_of(&group.read("memory.max", "memory.limit_in_bytes")?)?;
        Some((limit, group.directory))
    });
    match limits.filter(|(limit, _)| *limit < total).min() {
        Some((bytes, group)) => HostMemory { bytes, limited_by: Some(group) },
        None => HostMemory { bytes: total, limited_by: None },
    }
}

/// Measures the host's, whatever bounds this process.
///
/// # Errors
/// As for [`host_memory`].
pub(super) fn whole_host_memory() -> Result<HostMemory> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").doing("reading", "/proc/meminfo")?;
    let bytes = total_of(&meminfo)
        .ok_or_else(|| Error::corrupt("/proc/meminfo names no MemTotal").at("/proc/meminfo"))?;
    Ok(HostMemory { bytes, limited_by: None })
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Reads a limit file of either version; `None` where it sets no limit. Version 1 writes a huge number for that.
fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directories that may have a limit.
    fn groups(cgroups: &str, mountinfo: &str) -> Vec<String> {
        let groups = OwnGroups { cgroups: cgroups.into(), mountinfo: mountinfo.into() };
        groups.of("memory").iter().map(|group| group.directory.display().to_string()).collect()
    }

    #[test]
    fn every_group_from_this_process_to_the_root_may_set_the_limit() {
        let unified = "25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = groups("0::/user.slice/app.scope\n", unified);
        let expected = ["/user.slice/app.scope", "/user.slice", ""];
        assert_eq!(found, expected.map(|group| format!("/sys/fs/cgroup{group}")));

        let legacy = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = groups("4:memory:/api/x\n3:cpu:/other\n0::/\n", legacy);
        let expected = ["/api/x", "/api", ""];
        assert_eq!(found, expected.map(|group| format!("/sys/fs/cgroup/memory{group}")));
    }

    /// Mutation tried: without the removal of the mount's root, a container's limit is looked for where it is not.
    #[test]
    fn a_container_finds_its_limit_at_the_mounts_root() {
        let shared = "30 25 0:26 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let expected = ["/sys/fs/cgroup/memory"];
        assert_eq!(groups("4:memory:/docker/c1\n", shared), expected);
        // With a namespace of its own, it names its group from there.
        assert_eq!(groups("4:memory:/\n", shared), expected);
        let own = "25 1 0:23 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(groups("0::/\n", own), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn texts_without_a_limit_set_none() {
        assert_eq!(limit_of("max\n"), None);
        assert_eq!(limit_of("2147483648\n"), Some(2 << 30));
        assert_eq!(limit_of(""), None);
        assert_eq!(total_of("MemTotal:        1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        for garbage in ["", "0::", "a:b", "25 1", "25 1 0:23 / /x rw - cgroup2", "::::\n - \n"] {
            assert_eq!(groups(garbage, garbage), [""; 0], "{garbage:?}");
        }
    }

    #[test]
    fn this_host_has_memory() {
        assert!(host_memory().unwrap().bytes > 64 << 20);
    }
}

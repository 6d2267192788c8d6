//! Measures what the guest consumes.

use boxlite_proto::GuestMetrics;

use crate::linux;

/// Kernel threads carry this flag in `/proc/<pid>/stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// `/proc/stat` counts in hundredths of a second on every Linux.
const MS_PER_TICK: u64 = 10;

/// Measures now. A figure that cannot be read is 0.
pub(crate) fn measure() -> GuestMetrics {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (root_total, root_used) = rustix::fs::statvfs("/").map_or((0, 0), |fs| {
        (fs.f_blocks * fs.f_frsize, fs.f_blocks.saturating_sub(fs.f_bfree) * fs.f_frsize)
    });
    let (cpu_busy_ms, cpus) = processor_time(&stat);
    GuestMetrics {
        uptime_ms: linux::since_boot().as_millis() as u64,
        cpu_busy_ms,
        cpus,
        memory_total: memory_field(&memory, "MemTotal:"),
        memory_available: memory_field(&memory, "MemAvailable:"),
        processes: count_processes(),
        root_total,
        root_used,
    }
}

/// Returns how many processes the kernel has killed for want of memory since it booted; 0 where it does not count them.
///
/// The kernel counts before it kills, so the count includes a process that was just reaped.
pub(crate) fn memory_kills() -> u32 {
    counter(&std::fs::read_to_string("/proc/vmstat").unwrap_or_default(), "oom_kill")
        .try_into()
        .unwrap_or(u32::MAX)
}

fn counter(vmstat: &str, name: &str) -> u64 {
    let value = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Returns the milliseconds not spent idle or waiting for input and output, and the number of processors.
fn processor_time(stat: &str) -> (u64, u32) {
    let busy = stat.lines().find_map(|line| line.strip_prefix("cpu ")).map_or(0, |times| {
        let ticks = times.split_ascii_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
        // user nice system idle iowait irq softirq steal; guest time is part of user time.
        ticks.take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, n)| n).sum::<u64>()
    });
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    (busy * MS_PER_TICK, cpus as u32)
}

fn memory_field(meminfo: &str, name: &str) -> u64 {
    let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    kibibytes.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Returns the bytes of memory that the kernel manages.
pub(crate) fn memory_total() -> u64 {
    memory_field(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:")
}

fn count_processes() -> u32 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_process = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let numeric = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        numeric
            && std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| !is_kernel_thread(&stat))
    };
    entries.flatten().filter_map(|entry| is_process(entry).then_some(())).count() as u32
}

/// Reads the flags of `/proc/<pid>/stat`, its ninth field. The second is a name in parentheses with any characters in it.
pub(crate) fn is_kernel_thread(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = after_name.split_ascii_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_busy() {
        let stat = "cpu  10 0 5 1000 100 1 2 3 0 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 1\n";
        assert_eq!(processor_time(stat), (210, 2));
        assert_eq!(processor_time(""), (0, 0));
    }

    #[test]
    fn fields_of_meminfo() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:      42 kB\n";
        assert_eq!(memory_field(text, "MemTotal:"), 16 << 20);
        assert_eq!(memory_field(text, "MemAvailable:"), 43008);
        assert_eq!(memory_field(text, "Swap:"), 0);
    }

    #[test]
    fn counters_of_vmstat() {
        let text = "oom_kill_other 7\npgfault 12\noom_kill 3\n";
        assert_eq!(
            (counter(text, "oom_kill"), counter(text, "pgfault"), counter(text, "absent")),
            (3, 12, 0)
        );
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(!is_kernel_thread("9 (a) S 2) R 1 9 9 0 -1 4194304 0 0"));
    }

    /// This process runs on a kernel whose figures must make sense.
    #[test]
    fn a_live_kernel_is_measured() {
        let metrics = measure();
        assert!(metrics.memory_available > 0 && metrics.memory_available <= metrics.memory_total);
        assert!(metrics.processes > 0 && metrics.cpus > 0 && metrics.root_used <= metrics.root_total);
    }
}

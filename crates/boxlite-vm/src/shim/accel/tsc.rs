//! The rate of the host's time-stamp counter.

use std::time::{Duration, Instant};

const MEASURE_INTERVAL: Duration = Duration::from_millis(50);
/// How far apart the two clocks may be read: a thread that was set aside in between tries again.
const MAX_READING_GAP: Duration = Duration::from_micros(5);

/// Measures the rate in kHz against the monotonic clock over 50 ms; 0 where there is no such counter.
pub(super) fn measure_khz() -> u32 {
    let (start, first) = both_clocks();
    while start.elapsed() < MEASURE_INTERVAL {
        std::hint::spin_loop();
    }
    let (end, last) = both_clocks();
    let cycles = u128::from(last.wrapping_sub(first));
    u32::try_from(cycles * 1_000_000 / (end - start).as_nanos().max(1)).unwrap_or(0)
}

fn both_clocks() -> (Instant, u64) {
    const TRIES: usize = 100;
    let read = || (Instant::now(), counter());
    (0..TRIES).map(|_| read()).find(|(time, _)| time.elapsed() < MAX_READING_GAP).unwrap_or_else(read)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 CPU and touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_rate_is_that_of_a_plausible_cpu_and_stable() {
        let (first, second) = (super::measure_khz(), super::measure_khz());
        assert!((500_000..10_000_000).contains(&first), "{first} kHz");
        assert!(first.abs_diff(second) < first / 100, "{first} and {second} kHz");
    }
}

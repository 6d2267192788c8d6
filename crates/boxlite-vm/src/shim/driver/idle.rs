//! When nobody uses a box: a pure decision over observations.

use std::time::Duration;

use tokio::time::Instant;

/// How often a box is judged; what happened in between counts together.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The share of one processor, in percent, from which the guest counts as working.
const BUSY_PERCENT: u128 = 2;

/// The signs of a box's use. The counts only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoxUse {
    /// A client is attached, or has a command or a copy under way; or the guest may not run.
    pub(super) engaged: bool,
    /// Frames of the box's network, in both directions.
    pub(super) frames: u64,
    /// A probe of its health is under way: what that costs is known only when it has ended.
    pub(super) is_probing: bool,
    /// Processor time of its virtual machine without that of probes; `None` when it cannot be measured, which counts as use.
    pub(super) cpu: Option<Duration>,
}

/// Watches a box that is to be stopped once nobody has used it for a while.
#[derive(Debug)]
pub(super) struct IdleWatch {
    timeout: Duration,
    /// When the box was last seen in use.
    used: Instant,
    /// The observation that the next one is compared with.
    last: Option<(Instant, BoxUse)>,
}

impl IdleWatch {
    /// A box that comes up now counts as used.
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout, used: now, last: None }
    }

    /// Judges an observation; returns for how long nobody has used the box, once that is as long as it may be.
    pub(super) fn observe(&mut self, now: Instant, current: BoxUse) -> Option<Duration> {
        if current.engaged {
            self.used = now;
        }
        if current.is_probing {
            return None;
        }
        let (at, before) = *self.last.get_or_insert((now, current));
        let elapsed = now.duration_since(at);
        if elapsed >= SAMPLE_INTERVAL {
            self.last = Some((now, current));
            let worked = match (before.cpu, current.cpu) {
                (Some(before), Some(now)) => now.saturating_sub(before),
                _ => elapsed,
            };
            if current.frames != before.frames
                || worked.as_millis() * 100 >= elapsed.as_millis() * BUSY_PERCENT
            {
                self.used = now;
            }
        }
        let unused = now.duration_since(self.used);
        (unused >= self.timeout).then_some(unused)
    }
}

/// The processor time that the process `pid` has used.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the locals that they are given, and to nothing else.
    #[allow(unsafe_code)]
    let read = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    read.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Observes each second and returns the second in which the box counts as unused for five.
    fn stopped_at(uses: impl Fn(u64) -> BoxUse) -> Option<u64> {
        let begin = Instant::now();
        let mut watch = IdleWatch::new(SECOND * 5, begin);
        (0..30).find(|&second| watch.observe(begin + SECOND * second as u32, uses(second)).is_some())
    }

    const UNUSED: BoxUse = BoxUse { engaged: false, frames: 7, is_probing: false, cpu: Some(Duration::ZERO) };

    /// Mutation tried: each sign of use left out of the decision.
    #[test]
    fn a_box_is_used_by_sessions_frames_and_work() {
        assert_eq!(stopped_at(|_| UNUSED), Some(5));
        assert_eq!(stopped_at(|_| BoxUse { engaged: true, ..UNUSED }), None);
        assert_eq!(stopped_at(|now| BoxUse { engaged: now < 4, ..UNUSED }), Some(8));
        assert_eq!(stopped_at(|now| BoxUse { frames: now, ..UNUSED }), None);
        assert_eq!(stopped_at(|now| BoxUse { frames: now.min(6), ..UNUSED }), Some(11));
        let working = |percent: u64| {
            move |now| BoxUse { cpu: Some(Duration::from_millis(now * percent * 10)), ..UNUSED }
        };
        assert_eq!(stopped_at(working(2)), None);
        assert_eq!(stopped_at(working(1)), Some(5));
        assert_eq!(stopped_at(|_| BoxUse { cpu: None, ..UNUSED }), None, "what is not known counts as use");
    }

    #[test]
    fn a_probe_is_no_use_and_hides_none() {
        // In every third second a probe takes half a second, which is taken off at its end.
        let probes = |own: u64| {
            move |now: u64| BoxUse {
                is_probing: now % 3 == 1,
                cpu: Some(Duration::from_millis(now * own + if now % 3 == 1 { 500 } else { 0 })),
                ..UNUSED
            }
        };
        assert_eq!(stopped_at(probes(0)), Some(5));
        assert_eq!(stopped_at(probes(50)), None);
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {}
        assert!(cpu_time(std::process::id()).unwrap() > before);
        assert_eq!(cpu_time(0x3fff_fff0), None);
    }
}

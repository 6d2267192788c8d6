//! How long things take: histograms, and the stages of a start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many times one was counted that took so long at most, and longer than the bound before, in seconds. They span a command
/// in a box (milliseconds) and the build of a large image (minutes).
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How long something took, counted by [`LATENCY_BOUNDS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    /// One count per bound.
    pub counts: [u64; LATENCY_BOUNDS.len()],
    /// The number of those longer than the last bound.
    pub longer: u64,
    /// All of it together, in seconds.
    pub seconds: f64,
}

impl LatencyHistogram {
    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }
}

/// Counts into a [`LatencyHistogram`]; shared by everybody who measures, without a lock.
#[derive(Debug, Default)]
pub struct LatencyRecorder {
    counts: [AtomicU64; LATENCY_BOUNDS.len()],
    longer: AtomicU64,
    micros: AtomicU64,
}

impl LatencyRecorder {
    /// Counts one that took so long.
    pub fn record(&self, took: Duration) {
        let bound = LATENCY_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        let count = bound.map_or(&self.longer, |bound| &self.counts[bound]);
        count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn now(&self) -> LatencyHistogram {
        LatencyHistogram {
            counts: std::array::from_fn(|bound| self.counts[bound].load(Ordering::Relaxed)),
            longer: self.longer.load(Ordering::Relaxed),
            seconds: Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

/// A stage of a box's start, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStage {
    /// Admission: of memory, then of disk space, with the garbage collected for it.
    Admission,
    /// The disk image is leased, and built where it is missing.
    Image,
    /// The overlay is made, or found.
    Overlay,
    /// Shim and QEMU are spawned, and the start is recorded.
    Launch,
    /// The guest comes up.
    Guest,
}

impl StartStage {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Admission, Self::Image, Self::Overlay, Self::Launch, Self::Guest];

    /// Its name in metrics and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Image => "image",
            Self::Overlay => "overlay",
            Self::Launch => "launch",
            Self::Guest => "guest",
        }
    }
}

/// How long the stages of one start took, in milliseconds; 0 for one that it did not reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartTimes {
    /// By stage, as in [`StartStage::ALL`].
    pub stages: [u64; StartStage::ALL.len()],
    /// From the request to the end, waiting for others included.
    pub total: u64,
}

impl StartTimes {
    /// How long a stage took, in milliseconds.
    pub fn of(&self, stage: StartStage) -> u64 {
        self.stages[stage as usize]
    }
}

/// Latencies by operation since a runtime was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// Starts after which the box ran.
    pub starts: LatencyHistogram,
    /// Stages of starts, as in [`StartStage::ALL`], whatever became of the start.
    pub start_stages: [LatencyHistogram; StartStage::ALL.len()],
    /// Commands, from the request until they ran.
    pub execs: LatencyHistogram,
    /// Pulls that succeeded.
    pub pulls: LatencyHistogram,
    /// How long guests stood still while their disks were switched, by their own clocks.
    pub snapshot_pauses: LatencyHistogram,
    /// Passes of gc, automatic ones included, dry runs not.
    pub gc: LatencyHistogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_at_the_first_bound_that_it_does_not_exceed() {
        let recorder = LatencyRecorder::default();
        for ms in [0, 5, 6, 1000, 300_000, 300_001] {
            recorder.record(Duration::from_millis(ms));
        }
        let counted = recorder.now();
        assert_eq!(
            (counted.counts[0], counted.counts[1], counted.counts[7], counted.counts[13]),
            (2, 1, 1, 1)
        );
        assert_eq!((counted.longer, counted.total()), (1, 6));
        assert!((counted.seconds - 601.012).abs() < 1e-6, "{}", counted.seconds);
    }

    #[test]
    fn stages_are_numbered_in_their_order() {
        for (number, stage) in StartStage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, number, "{}", stage.name());
        }
        // An older server's answer has no times.
        assert_eq!(serde_json::from_str::<Latencies>("{}").unwrap(), Latencies::default());
    }
}

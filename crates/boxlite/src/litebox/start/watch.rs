//! How long the stages of a start take.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use boxlite_types::{Result, StartStage, StartTimes};

/// A stopwatch for the stages of one start.
#[derive(Debug)]
pub(crate) struct StartWatch {
    /// When the start was asked for.
    pub(crate) began: SystemTime,
    clock: Instant,
    stages: Mutex<Vec<TimedStage>>,
}

/// The duration of a stage that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimedStage {
    pub(crate) stage: StartStage,
    /// Since the start was asked for.
    pub(crate) began: Duration,
    pub(crate) took: Duration,
    pub(crate) failed: bool,
}

impl StartWatch {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { began: SystemTime::now(), clock: Instant::now(), stages: Mutex::default() }
    }

    /// Takes the time of a stage that blocks.
    pub(crate) fn time<T>(&self, stage: StartStage, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = self.clock.elapsed();
        let result = work();
        self.ended(stage, began, result.is_err());
        result
    }

    /// Takes the time of a stage that is waited for; one that is given up is not counted.
    pub(crate) async fn time_waiting<T>(
        &self,
        stage: StartStage,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = self.clock.elapsed();
        let result = work.await;
        self.ended(stage, began, result.is_err());
        result
    }

    fn ended(&self, stage: StartStage, began: Duration, failed: bool) {
        self.lock().push(TimedStage {
            stage,
            began,
            took: self.clock.elapsed().saturating_sub(began),
            failed,
        });
    }

    /// How long the start has taken until now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The stages that have ended, in their order.
    pub(crate) fn stages(&self) -> Vec<TimedStage> {
        self.lock().clone()
    }

    /// The times until now; a stage that was gone through again counts as a whole.
    pub(crate) fn times(&self) -> StartTimes {
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut times = StartTimes { total: milliseconds(self.elapsed()), ..StartTimes::default() };
        for TimedStage { stage, took, .. } in self.stages() {
            times.stages[stage as usize] += milliseconds(took);
        }
        times
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TimedStage>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

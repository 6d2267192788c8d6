//! Measurements that take time, shared by everyone who asks while they are fresh.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite::{BoxInfo, Consumption, Error, ErrorKind, GcOptions, GcReport, HostInfo, Result, Runtime};
use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

/// How old a gc plan may be when it is shown: making one walks the whole home.
const MAX_PLAN_AGE: Duration = Duration::from_secs(15);
/// How long a scrape waits for a plan. A slower plan is shown to the next scrape, and this one gets the plan before it.
const PLAN_TIMEOUT: Duration = Duration::from_secs(5);
/// Boxes that are measured one by one.
const MAX_MEASURED_BOXES: usize = 256;
/// Boxes that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;
/// How long all of them together may take.
const MEASURING_TIMEOUT: Duration = Duration::from_secs(5);
/// How old the figures of the host may be.
const MAX_INFO_AGE: Duration = Duration::from_secs(1);

/// The latest measurements of the home and its host.
#[derive(Debug)]
pub(crate) struct Observations {
    runtime: Runtime,
    plan: Recent<GcReport>,
    info: Recent<HostInfo>,
}

impl Observations {
    /// Starts without measurements; `runtime` provides them.
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime, plan: Recent::new(MAX_PLAN_AGE), info: Recent::new(MAX_INFO_AGE) }
    }

    /// Returns the figures of the host.
    pub(crate) async fn host(&self) -> Result<Arc<HostInfo>> {
        let runtime = self.runtime.clone();
        self.info.get(|| async move { runtime.info().await }).await
    }

    /// Returns what each running box consumes, by id, of at most [`MAX_MEASURED_BOXES`]: those that were made last. A box that
    /// does not answer in time is left out.
    pub(crate) async fn consumption(&self, boxes: &[BoxInfo]) -> Vec<Consumption> {
        let mut running: Vec<_> = boxes.iter().filter(|info| info.state.is_up()).collect();
        running.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        let ids = running.into_iter().take(MAX_MEASURED_BOXES).map(|info| info.id.clone());
        let asked = stream::iter(ids.collect::<Vec<_>>())
            .map(|id| async move { self.runtime.consumption(&id).await.ok() })
            .buffer_unordered(ASKED_AT_ONCE);
        let enough = tokio::time::sleep(MEASURING_TIMEOUT);
        let mut measured: Vec<_> = asked.take_until(enough).filter_map(std::future::ready).collect().await;
        measured.sort_by(|a, b| a.id.cmp(&b.id));
        measured
    }

    /// Returns what gc would do; `None` when no plan can be made, or when the first one takes too long.
    pub(crate) async fn plan(&self) -> Option<Arc<GcReport>> {
        let (runtime, options) = (self.runtime.clone(), GcOptions { dry_run: true, ..GcOptions::default() });
        let making = self.plan.get(|| async move { runtime.collect_garbage(options).await });
        match tokio::time::timeout(PLAN_TIMEOUT, making).await {
            Ok(made) => made
                .inspect_err(|error| tracing::warn!(error = %error.chain(), "gc could not be planned"))
                .ok(),
            Err(_) => self.plan.latest(),
        }
    }
}

/// The last measurement of something.
///
/// One measurement runs at a time, and everyone who asks meanwhile waits for it. It runs to its end even when all of them
/// have gone: otherwise a measurement that takes longer than they wait would start over again and again.
#[derive(Debug)]
struct Recent<T> {
    /// How old a measurement may be when it is shown.
    age: Duration,
    measurements: Mutex<Measurements<T>>,
}

#[derive(Debug)]
struct Measurements<T> {
    last: Option<Measurement<T>>,
    /// The result before the last measurement.
    before: Option<Arc<T>>,
}

/// A measurement that runs or is done; one without a result and without a sender was aborted.
type Measurement<T> = watch::Receiver<Option<(Instant, Result<Arc<T>, Arc<Error>>)>>;

impl<T: Send + Sync + 'static> Recent<T> {
    fn new(age: Duration) -> Self {
        Self { age, measurements: Mutex::new(Measurements { last: None, before: None }) }
    }

    /// Returns the last result, however old, if there is one.
    fn latest(&self) -> Option<Arc<T>> {
        self.measurements.lock().unwrap_or_else(PoisonError::into_inner).latest()
    }

    /// Returns a fresh result, from `measure` where there is none. Failures are reported to those who waited and not kept.
    async fn get<F>(&self, measure: impl FnOnce() -> F) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut answer = self.last_or(measure);
        let answer = answer.wait_for(Option::is_some).await;
        match answer.as_deref() {
            Ok(Some((_, Ok(found)))) => Ok(Arc::clone(found)),
            Ok(Some((_, Err(error)))) => Err(Error::clone(error)),
            Ok(None) | Err(_) => Err(Error::new(ErrorKind::Cancelled, "a measurement was aborted")),
        }
    }

    fn last_or<F>(&self, measure: impl FnOnce() -> F) -> Measurement<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut measurements = self.measurements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = measurements.last.as_ref().filter(|last| self.serves(last)) {
            return last.clone();
        }
        let (answer, waiting) = watch::channel(None);
        let measuring = measure();
        tokio::spawn(async move {
            let found = measuring.await.map(Arc::new).map_err(Arc::new);
            answer.send_replace(Some((Instant::now(), found)));
        });
        *measurements = Measurements { before: measurements.latest(), last: Some(waiting.clone()) };
        waiting
    }

    fn serves(&self, measurement: &Measurement<T>) -> bool {
        match &*measurement.borrow() {
            Some((at, found)) => found.is_ok() && at.elapsed() < self.age,
            None => measurement.has_changed().is_ok(),
        }
    }
}

impl<T> Measurements<T> {
    fn latest(&self) -> Option<Arc<T>> {
        match self.last.as_ref().and_then(|last| last.borrow().clone()) {
            Some((_, Ok(found))) => Some(found),
            _ => self.before.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const AGE: Duration = Duration::from_secs(15);
    const TAKES: Duration = Duration::from_secs(60);

    /// Measurements that each take [`TAKES`], counted.
    #[derive(Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Slow {
        async fn at(&self, recent: &Recent<usize>) -> Result<Arc<usize>> {
            let taken = Arc::clone(&self.0);
            recent
                .get(|| async move {
                    let which = taken.fetch_add(1, Ordering::Relaxed) + 1;
                    tokio::time::sleep(TAKES).await;
                    if which == 3 { Err(Error::not_found("the third")) } else { Ok(which) }
                })
                .await
        }
    }

    /// Mutation tried: with a measurement that ends when its caller leaves, impatient callers start it each time.
    #[tokio::test(start_paused = true)]
    async fn a_measurement_that_outlasts_its_callers_runs_once_and_is_shown_to_all() {
        let (recent, slow) = (Recent::new(AGE), Slow::default());
        for _ in 0..3 {
            let impatient = tokio::time::timeout(TAKES / 4, slow.at(&recent));
            assert!(impatient.await.is_err());
        }
        let (one, other) = tokio::join!(slow.at(&recent), slow.at(&recent));
        assert_eq!((*one.unwrap(), *other.unwrap()), (1, 1));
        tokio::time::sleep(AGE / 2).await;
        assert_eq!(*slow.at(&recent).await.unwrap(), 1, "it is as old as its end");
        tokio::time::sleep(AGE).await;
        assert_eq!(*slow.at(&recent).await.unwrap(), 2);
        tokio::time::sleep(AGE).await;
        assert!(tokio::time::timeout(TAKES / 4, slow.at(&recent)).await.is_err());
        assert_eq!(recent.latest().as_deref(), Some(&2), "the result before the slow measurement");
        assert_eq!(slow.at(&recent).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(recent.latest().as_deref(), Some(&2));
        assert_eq!(*slow.at(&recent).await.unwrap(), 4, "a failure is not kept");
    }

    /// Mutation tried: without the comparison of its age, the first figures stay for ever.
    #[tokio::test(start_paused = true)]
    async fn a_measurement_grows_old_even_if_nobody_waited_for_it() {
        let (recent, slow) = (Recent::new(AGE), Slow::default());
        assert!(tokio::time::timeout(AGE / 2, slow.at(&recent)).await.is_err());
        tokio::time::sleep(TAKES).await;
        let at_once = tokio::time::timeout(Duration::ZERO, slow.at(&recent)).await;
        assert_eq!(*at_once.expect("a later scrape has it at once").unwrap(), 1);
        tokio::time::sleep(AGE).await;
        assert_eq!(*slow.at(&recent).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn an_aborted_measurement_is_repeated() {
        let recent = Recent::new(AGE);
        let broken = recent.get(|| async { panic!("a measurement that aborts") }).await;
        assert_eq!(broken.map(|found: Arc<u8>| *found).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(*recent.get(|| async { Ok(7) }).await.unwrap(), 7);
    }
}

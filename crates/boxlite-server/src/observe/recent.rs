//! What takes time to find out, and need not be found out for each who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::Instant;

/// The last look at something. There is one look at a time, which whoever asks meanwhile waits for, and which is taken
/// to its end although all of them have gone: else a look that takes longer than they wait would begin again and again.
#[derive(Debug)]
pub(super) struct Recent<T> {
    /// How old what is shown may be.
    age: Duration,
    looks: Mutex<Looks<T>>,
}

#[derive(Debug)]
struct Looks<T> {
    last: Option<Look<T>>,
    /// What was seen before the last look.
    before: Option<Arc<T>>,
}

/// A look under way or taken; without an answer and without a sender it was broken off.
type Look<T> = watch::Receiver<Option<(Instant, Found<T>)>>;
type Found<T> = Result<Arc<T>, Arc<Error>>;

impl<T: Send + Sync + 'static> Recent<T> {
    pub(super) fn new(age: Duration) -> Self {
        Self { age, looks: Mutex::new(Looks { last: None, before: None }) }
    }

    /// What was seen last, however old, if anything was.
    pub(super) fn latest(&self) -> Option<Arc<T>> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.latest()
    }

    /// What was seen lately, or what `look` sees now. A look that failed is not shown to who comes after it.
    pub(super) async fn get<F>(&self, look: impl FnOnce() -> F) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut answer = self.last_or(look);
        let answer = answer.wait_for(Option::is_some).await;
        match answer.as_deref() {
            Ok(Some((_, Ok(found)))) => Ok(Arc::clone(found)),
            Ok(Some((_, Err(error)))) => Err(Error::clone(error)),
            Ok(None) | Err(_) => Err(Error::new(ErrorKind::Cancelled, "a look was broken off")),
        }
    }

    fn last_or<F>(&self, look: impl FnOnce() -> F) -> Look<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = looks.last.as_ref().filter(|last| self.serves(last)) {
            return last.clone();
        }
        let (answer, waiting) = watch::channel(None);
        let looking = look();
        tokio::spawn(async move {
            let found = looking.await.map(Arc::new).map_err(Arc::new);
            answer.send_replace(Some((Instant::now(), found)));
        });
        *looks = Looks { before: looks.latest(), last: Some(waiting.clone()) };
        waiting
    }

    fn serves(&self, look: &Look<T>) -> bool {
        match &*look.borrow() {
            Some((at, found)) => found.is_ok() && at.elapsed() < self.age,
            None => look.has_changed().is_ok(),
        }
    }
}

impl<T> Looks<T> {
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

    /// Looks that each take [`TAKES`], counted.
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

    /// Mutation tried: with a look that ends when who caused it goes, those who do not wait begin it each time.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_outlasts_who_asks_is_taken_once_and_shown_to_all() {
        let (recent, looks) = (Recent::new(AGE), Slow::default());
        for _ in 0..3 {
            let impatient = tokio::time::timeout(TAKES / 4, looks.at(&recent));
            assert!(impatient.await.is_err());
        }
        let (one, other) = tokio::join!(looks.at(&recent), looks.at(&recent));
        assert_eq!((*one.unwrap(), *other.unwrap()), (1, 1));
        tokio::time::sleep(AGE / 2).await;
        assert_eq!(*looks.at(&recent).await.unwrap(), 1, "it is as old as its end");
        tokio::time::sleep(AGE).await;
        assert_eq!(*looks.at(&recent).await.unwrap(), 2);
        tokio::time::sleep(AGE).await;
        assert!(tokio::time::timeout(TAKES / 4, looks.at(&recent)).await.is_err());
        assert_eq!(recent.latest().as_deref(), Some(&2), "what was seen before the look that takes so long");
        assert_eq!(looks.at(&recent).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(recent.latest().as_deref(), Some(&2));
        assert_eq!(*looks.at(&recent).await.unwrap(), 4, "a failure is not kept");
    }

    /// Mutation tried: without the comparison of its age, the first figures stay for ever.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_nobody_waited_for_grows_old_all_the_same() {
        let (recent, looks) = (Recent::new(AGE), Slow::default());
        assert!(tokio::time::timeout(AGE / 2, looks.at(&recent)).await.is_err());
        tokio::time::sleep(TAKES).await;
        let at_once = tokio::time::timeout(Duration::ZERO, looks.at(&recent)).await;
        assert_eq!(*at_once.expect("a later scrape has it at once").unwrap(), 1);
        tokio::time::sleep(AGE).await;
        assert_eq!(*looks.at(&recent).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_look_that_is_broken_off_is_taken_again() {
        let recent = Recent::new(AGE);
        let broken = recent.get(|| async { panic!("a look that breaks off") }).await;
        assert_eq!(broken.map(|found: Arc<u8>| *found).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(*recent.get(|| async { Ok(7) }).await.unwrap(), 7);
    }
}

//! Waiting for what has no event to wait for: a condition is polled until it holds, or fails the test.
//!
//! A test that sleeps for a fixed time to pass is slow on a fast machine and wrong on a slow one.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for an emulated boot on a busy machine.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the first answer of `probe`; fails the test without one after [`TEST_TIMEOUT`].
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(TEST_TIMEOUT, what, probe)
}

/// Returns the first answer of `probe`; fails the test without one after `limit`.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until `holds`; fails the test if it does not after `limit`.
#[track_caller]
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    within(limit, what, || holds().then_some(()));
}

/// Returns the first answer of an asynchronous `probe`; fails the test without one after `limit`.
pub async fn within_async<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let polled = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(limit, polled).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::{until, within, within_async};
    use std::time::Duration;

    #[test]
    fn the_first_answer_counts() {
        let mut tries = 0..;
        assert_eq!(within(Duration::from_secs(60), "three", || tries.next().filter(|n| *n == 3)), 3);
    }

    #[test]
    #[should_panic(expected = "a miracle: not within")]
    fn what_never_holds_fails_the_test() {
        until(Duration::ZERO, "a miracle", || false);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "an answer: not within")]
    async fn a_probe_that_never_answers_fails_the_test() {
        within_async(Duration::from_secs(1), "an answer", async || {
            std::future::pending::<Option<()>>().await
        })
        .await;
    }
}

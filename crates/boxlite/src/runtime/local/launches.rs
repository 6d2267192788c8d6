//! A bound on the starts that hold one of the runtime's blocking threads.
//!
//! # Limits
//! A start holds a thread until its shim runs: while it builds its disk image, or waits for another start that builds the same.
//! Everything that asks the home or the database needs a thread for a moment, too. So at most [`MAX_LAUNCHES`] starts hold one
//! at once, and the others wait for their turn without a thread.

use boxlite_home::blocking;
use boxlite_types::{Error, Result};
use tokio::sync::Semaphore;

/// Starts that hold a thread at once, of the 512 blocking threads that a runtime has.
const MAX_LAUNCHES: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(MAX_LAUNCHES);

/// Runs the blocking part of a start once there is a place for it.
///
/// # Errors
/// As for [`blocking`].
pub(super) async fn launch<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    launch_in(&PLACES, work).await
}

async fn launch_in<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let place = places.acquire().await.map_err(|error| Error::bug("no start has a place").because(error))?;
    // The place belongs to the thread: a caller that gives up does not free it.
    blocking(move || {
        let launched = work();
        drop(place);
        launched
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Before: 512 clients that started boxes of an image that was still being built kept the server from everything else.
    #[test]
    fn starts_that_wait_for_their_image_leave_threads_for_everybody_else() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(3).enable_all().build().unwrap();
        runtime.block_on(async {
            let (built, starts): (Vec<_>, Vec<_>) = (0..5)
                .map(|number| {
                    let (built, when_built) = mpsc::channel::<()>();
                    let start = launch_in(&PLACES, move || {
                        let _ = when_built.recv();
                        Ok(number)
                    });
                    (built, tokio::spawn(start))
                })
                .unzip();
            while PLACES.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let asked = tokio::time::timeout(Duration::from_secs(60), blocking(|| Ok(7))).await;
            assert_eq!(asked.expect("a thread").unwrap(), 7);
            drop(built);
            for (number, start) in starts.into_iter().enumerate() {
                assert_eq!(start.await.unwrap().unwrap(), number);
            }
        });
    }
}

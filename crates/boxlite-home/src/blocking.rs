//! Blocking work inside asynchronous code.

use boxlite_types::{Error, ErrorKind, Result};

/// Runs `work` on a thread where it may block.
///
/// # Errors
/// Those of `work`; `Cancelled` when the process is shutting down; `Bug` when `work` panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => {
            Err(Error::new(ErrorKind::Cancelled, "the process is shutting down"))
        }
        Err(error) => Err(Error::bug("a task broke down").because(error)),
    }
}

//! Signals to us, passed on to a command.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use boxlite::ExecutionControl;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::window_size;

/// Those that a command gets to see.
const PROXIED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// So many INTs or TERMs end us although the command goes on.
const PATIENCE: u32 = 3;

/// A signal that takes longer to deliver was not delivered.
const DELIVERY: Duration = Duration::from_secs(2);

/// Passes signals on until dropped; `impatient` is told the signal with which the user lost patience.
pub(super) async fn proxy(control: Arc<dyn ExecutionControl>, impatient: oneshot::Sender<i32>) {
    let Ok(arriving) = subscribe(&PROXIED) else { return };
    let deliver = |number| {
        let control = Arc::clone(&control);
        async move { control.signal(number).await }
    };
    pass_on(arriving, deliver, impatient).await;
}

async fn pass_on<F: Future<Output = boxlite::Result<()>>>(
    mut arriving: mpsc::Receiver<i32>,
    deliver: impl Fn(i32) -> F,
    impatient: oneshot::Sender<i32>,
) {
    let mut urgent = 0;
    while let Some(number) = arriving.recv().await {
        if matches!(number, libc::SIGINT | libc::SIGTERM) {
            urgent += 1;
        }
        let delivered = match timeout(DELIVERY, deliver(number)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!("passing on signal {number} failed: {}", error.chain());
                false
            }
            Err(_) => {
                tracing::debug!("passing on signal {number} takes too long");
                false
            }
        };
        if urgent == PATIENCE || (urgent > 0 && !delivered) {
            // Nobody listens when the command has just ended.
            let _ = impatient.send(number);
            return;
        }
    }
}

/// Tells the command's terminal our size, now and whenever it changes.
pub(super) async fn follow_size(control: Arc<dyn ExecutionControl>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(size) = window_size()
            && let Err(error) = control.resize(size).await
        {
            tracing::debug!("resizing the command's terminal failed: {}", error.chain());
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Resolves to the number of the first INT, TERM or HUP; until then it replaces their effect.
pub(crate) async fn interruption() -> i32 {
    let arriving = subscribe(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP]);
    match arriving {
        Ok(mut arriving) => match arriving.recv().await {
            Some(number) => number,
            None => std::future::pending().await,
        },
        Err(_) => std::future::pending().await,
    }
}

fn subscribe(numbers: &[i32]) -> io::Result<mpsc::Receiver<i32>> {
    let (send, receive) = mpsc::channel(8);
    for &number in numbers {
        let mut source: Signal = signal(SignalKind::from_raw(number))?;
        let send = send.clone();
        tokio::spawn(async move {
            while source.recv().await.is_some() {
                if send.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receive)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn patience_lost<F: Future<Output = boxlite::Result<()>>>(
        numbers: &[i32],
        deliver: impl Fn(i32) -> F,
    ) -> Option<i32> {
        let (send, arriving) = mpsc::channel(8);
        for &number in numbers {
            send.send(number).await.unwrap();
        }
        drop(send);
        let (impatient, impatience) = oneshot::channel();
        pass_on(arriving, deliver, impatient).await;
        impatience.await.ok()
    }

    /// Mutation tried: without the timeout this test never ends.
    #[tokio::test]
    async fn who_can_not_be_told_is_let_go_of() {
        let lost = patience_lost(&[libc::SIGINT], |_| std::future::pending()).await;
        assert_eq!(lost, Some(libc::SIGINT));
    }

    #[tokio::test]
    async fn the_third_urgent_signal_ends_patience_and_is_delivered() {
        let delivered = std::cell::RefCell::new(Vec::new());
        let deliver = |number| {
            delivered.borrow_mut().push(number);
            std::future::ready(Ok(()))
        };
        assert_eq!(patience_lost(&[libc::SIGINT, libc::SIGUSR1, libc::SIGINT], &deliver).await, None);
        delivered.borrow_mut().clear();
        let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGTERM];
        assert_eq!(patience_lost(&numbers, &deliver).await, Some(libc::SIGTERM));
        assert_eq!(*delivered.borrow(), numbers);
    }
}

//! Signals to us, passed on to a command in a box.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use boxlite::ExecutionControl;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::tty::window_size;

/// The signals that are passed on.
const PROXIED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// The INT or TERM of this number ends us although the command keeps running.
const MAX_URGENT_SIGNALS: u32 = 3;

/// How long delivering a signal may take before it counts as failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Passes signals on until dropped; `give_up` is sent the signal at which we leave the command running.
pub(super) async fn proxy(control: Arc<dyn ExecutionControl>, give_up: oneshot::Sender<i32>) {
    let Ok(arriving) = subscribe(&PROXIED) else { return };
    let deliver = |number| {
        let control = Arc::clone(&control);
        async move { control.signal(number).await }
    };
    pass_on(arriving, deliver, give_up).await;
}

async fn pass_on<F: Future<Output = boxlite::Result<()>>>(
    mut arriving: mpsc::Receiver<i32>,
    deliver: impl Fn(i32) -> F,
    give_up: oneshot::Sender<i32>,
) {
    let mut urgent = 0;
    while let Some(number) = arriving.recv().await {
        if matches!(number, libc::SIGINT | libc::SIGTERM) {
            urgent += 1;
        }
        let delivered = match timeout(DELIVERY_TIMEOUT, deliver(number)).await {
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
        if urgent == MAX_URGENT_SIGNALS || (urgent > 0 && !delivered) {
            // The session may just have ended.
            let _ = give_up.send(number);
            return;
        }
    }
}

/// Sets the size of the command's terminal to ours, now and whenever ours changes.
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

/// Resolves to the number of the first INT, TERM or HUP; until then they do not end this process.
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

    async fn given_up<F: Future<Output = boxlite::Result<()>>>(
        numbers: &[i32],
        deliver: impl Fn(i32) -> F,
    ) -> Option<i32> {
        let (send, arriving) = mpsc::channel(8);
        for &number in numbers {
            send.send(number).await.unwrap();
        }
        drop(send);
        let (give_up, receiver) = oneshot::channel();
        pass_on(arriving, deliver, give_up).await;
        receiver.await.ok()
    }

    /// Mutation tried: without the timeout this test never ends.
    #[tokio::test]
    async fn a_command_that_takes_no_signal_is_left_running() {
        let signal = given_up(&[libc::SIGINT], |_| std::future::pending()).await;
        assert_eq!(signal, Some(libc::SIGINT));
    }

    #[tokio::test]
    async fn the_third_urgent_signal_is_delivered_and_ends_the_session() {
        let delivered = std::cell::RefCell::new(Vec::new());
        let deliver = |number| {
            delivered.borrow_mut().push(number);
            std::future::ready(Ok(()))
        };
        assert_eq!(given_up(&[libc::SIGINT, libc::SIGUSR1, libc::SIGINT], &deliver).await, None);
        delivered.borrow_mut().clear();
        let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGTERM];
        assert_eq!(given_up(&numbers, &deliver).await, Some(libc::SIGTERM));
        assert_eq!(*delivered.borrow(), numbers);
    }
}

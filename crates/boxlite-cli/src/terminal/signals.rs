//! Signals to us, passed on to a command.

use std::io;
use std::sync::Arc;

use boxlite::ExecutionControl;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::window_size;

/// Those that a command gets to see.
const PROXIED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// So many INTs or TERMs end us although the command goes on.
const PATIENCE: u32 = 3;

/// Passes signals on until dropped; `impatient` is told the signal with which the user lost patience.
pub(super) async fn proxy(control: Arc<dyn ExecutionControl>, impatient: oneshot::Sender<i32>) {
    let Ok(mut arriving) = subscribe(&PROXIED) else { return };
    let mut urgent = 0;
    while let Some(number) = arriving.recv().await {
        let delivered = control.signal(number).await;
        if let Err(error) = &delivered {
            tracing::debug!("passing on signal {number} failed: {error}");
        }
        if matches!(number, libc::SIGINT | libc::SIGTERM) {
            urgent += 1;
        }
        if urgent == PATIENCE || (urgent > 0 && delivered.is_err()) {
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
            tracing::debug!("resizing the command's terminal failed: {error}");
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

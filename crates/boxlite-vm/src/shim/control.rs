//! Connections of clients to a shim: frames in, frames out, nothing decided here.

use tokio::io::AsyncRead;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::driver::{ClientInput, GuestInput};
use super::frames::{FrameReader, ReadError};
use super::sink;
use super::socket::Owner;

/// Accepts clients of `owner` until it is dropped; what they send goes to `driver`, in order, as fast as the driver takes it.
pub(super) async fn serve(
    listener: UnixListener,
    owner: Owner,
    connections: TaskTracker,
    driver: mpsc::Sender<(u64, ClientInput)>,
) {
    let mut next = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, _)) if owner.may_ask(&stream) => {
                next += 1;
                connections.spawn(connection(next, stream, driver.clone()));
            }
            Ok(_) => tracing::warn!("a process of another user was turned away"),
            Err(error) => {
                // Out of descriptors: those that are open go on, and closing one lets the next in.
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(id: u64, stream: UnixStream, driver: mpsc::Sender<(u64, ClientInput)>) {
    let (sink, source) = sink::queue();
    let (read, write) = stream.into_split();
    if driver.send((id, ClientInput::Connected(sink))).await.is_err() {
        return;
    }
    let reading = async {
        let mut frames = FrameReader::new(read);
        loop {
            match frames.next().await {
                Ok(Some(frame)) => {
                    if driver.send((id, ClientInput::Frame(frame))).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a client's stream ended badly");
                    break;
                }
            }
        }
    };
    // The queue ends when the driver forgets the client, which then learns it by the connection's end.
    let mut writing = std::pin::pin!(source.drain_into(write));
    tokio::select! {
        () = reading => {
            let _ = driver.send((id, ClientInput::Gone)).await;
            let _ = writing.await;
        }
        _ = &mut writing => {
            let _ = driver.send((id, ClientInput::Gone)).await;
        }
    }
}

/// Reads the agent's channel until it ends; a protocol error is passed on and ends it too.
pub(super) async fn read_agent(read: impl AsyncRead + Unpin, driver: mpsc::Sender<GuestInput>) {
    let mut frames = FrameReader::new(read);
    loop {
        let input = match frames.next().await {
            Ok(Some(frame)) => Ok(frame),
            Err(ReadError::Protocol(error)) => Err(error),
            Ok(None) | Err(ReadError::Io(_)) => return,
        };
        let last = input.is_err();
        if driver.send(input).await.is_err() || last {
            return;
        }
    }
}

//! Our standard input, pumped into a command in a box.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;

use boxlite::ExecutionControl;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::detach::DetachKeys;
use crate::report::note;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks read ahead of a slow command.
const MAX_CHUNKS_AHEAD: usize = 4;

/// Copies standard input to `to` until its end, which is passed on. Typing the detach keys notifies `detached`.
///
/// An input that cannot be read to its end is never passed on as one that ended: the command is killed.
pub(super) async fn pump(
    mut to: Pin<Box<dyn AsyncWrite + Send>>,
    mut keys: DetachKeys,
    detached: Option<oneshot::Sender<()>>,
    control: Arc<dyn ExecutionControl>,
) {
    let mut chunks = read_standard_input();
    while let Some(chunk) = chunks.recv().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                note(&format!("boxlite: reading standard input failed, so the command is killed: {error}"));
                if let Err(error) = control.signal(libc::SIGKILL).await {
                    note(&format!("boxlite: the command could not be killed: {}", error.chain()));
                }
                return;
            }
        };
        let (chunk, leave) = if detached.is_some() {
            let (pass, leave) = keys.feed(&chunk);
            (Bytes::from(pass), leave)
        } else {
            (chunk, false)
        };
        if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
            // The command has closed its input or has ended; the session reports how.
            return;
        }
        if leave {
            if let Some(detached) = detached {
                // The session may just have ended.
                let _ = detached.send(());
            }
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Reads on a thread of its own, because reading from a terminal or a pipe cannot be cancelled.
fn read_standard_input() -> mpsc::Receiver<io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(MAX_CHUNKS_AHEAD);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if send.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count]))).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Without a receiver, the session has ended.
                    let _ = send.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    receive
}

fn read(buffer: &mut [u8]) -> io::Result<usize> {
    rustix::io::read(rustix::stdio::stdin(), buffer).map_err(io::Error::from)
}

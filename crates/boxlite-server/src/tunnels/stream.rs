//! The client's end of a tunnel: a socket that was handed over, or the binary messages of a WebSocket.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use boxlite::Tunnel;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_util::sync::CancellationToken;

use crate::websocket::ServerSocket;

/// How long a service may take to end its side once its client has closed.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one message to the client.
const MESSAGE_BYTES: usize = 64 << 10;

/// Relays over the socket that the client's request leaves behind.
pub(crate) async fn over_socket(tunnel: Tunnel, upgrade: OnUpgrade, closing: CancellationToken) {
    let relayed = async { tunnel.relay(TokioIo::new(upgrade.await.map_err(io::Error::other)?)).await };
    let _ = until(relayed, &closing).await;
}

/// Relays the contents of messages, until the server goes away, which the client is told. A WebSocket has no end of one side
/// alone: what ends one side ends the tunnel. All that either side sent before its end arrives.
pub(crate) async fn over_websocket(tunnel: Tunnel, socket: ServerSocket, closing: CancellationToken) {
    let Tunnel { mut output, mut input } = tunnel;
    let (mut sink, mut messages) = socket.split();
    let relayed = async {
        let down = async {
            let mut piece = vec![0; MESSAGE_BYTES];
            loop {
                match output.read(&mut piece).await? {
                    0 => return sink.close().await.map_err(io::Error::other),
                    count => {
                        let message = Message::Binary(Bytes::copy_from_slice(&piece[..count]));
                        sink.send(message).await.map_err(io::Error::other)?;
                    }
                }
            }
        };
        let up = async {
            while let Some(message) = messages.next().await {
                match message.map_err(io::Error::other)? {
                    Message::Binary(bytes) => input.write_all(&bytes).await?,
                    Message::Text(text) => input.write_all(text.as_bytes()).await?,
                    Message::Close(_) => break,
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                }
                input.flush().await?;
            }
            input.shutdown().await
        };
        tokio::select! {
            biased;
            ended = down => return ended,
            ended = up => ended?,
        }
        // The connection ends with the tunnel, and a service may not have taken yet what the client said last.
        let mut nowhere = tokio::io::sink();
        let rest = tokio::io::copy(&mut output, &mut nowhere);
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, rest).await;
        Ok(())
    };
    if until(relayed, &closing).await.is_break() {
        let reason = Utf8Bytes::from_static("the server is going away");
        let _ = sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Away, reason }))).await;
    }
}

/// Relays until the end, or until the server goes away.
async fn until(
    relayed: impl Future<Output = io::Result<()>>,
    closing: &CancellationToken,
) -> ControlFlow<()> {
    tokio::select! {
        ended = relayed => if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel broke off");
        },
        () = closing.cancelled() => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

//! The client's end of a tunnel: a socket that was handed over, or the binary messages of a WebSocket.

use std::io;

use boxlite::Tunnel;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::sync::CancellationToken;

use crate::websocket::ServerSocket;

/// Bytes of one message to the client.
const MESSAGE_BYTES: usize = 64 << 10;

/// Relays over the socket that the client's request leaves behind.
pub(crate) async fn over_socket(tunnel: Tunnel, upgrade: OnUpgrade, closing: CancellationToken) {
    let relayed = async { tunnel.relay(TokioIo::new(upgrade.await.map_err(io::Error::other)?)).await };
    until(relayed, closing).await;
}

/// Relays the contents of messages. A WebSocket has no end of one side alone: what ends one side ends the tunnel, and all
/// that the service sent arrives before the closing message.
pub(crate) async fn over_websocket(tunnel: Tunnel, socket: ServerSocket, closing: CancellationToken) {
    let Tunnel { mut output, mut input } = tunnel;
    let (mut sink, mut messages) = socket.split();
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
        Ok(())
    };
    let relayed = async {
        tokio::select! {
            biased;
            ended = down => ended,
            ended = up => ended,
        }
    };
    until(relayed, closing).await;
}

async fn until(relayed: impl Future<Output = io::Result<()>>, closing: CancellationToken) {
    tokio::select! {
        ended = relayed => if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel broke off");
        },
        () = closing.cancelled() => {}
    }
}

//! `WebSocket` connections from the server's side (RFC 6455): the handshake, and messages of bounded length.

mod pieces;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::failure::HttpFailure;
use pieces::ShortMessages;

/// The longest text message from a client, in bytes. Binary messages have no limit, since they arrive in pieces.
const MAX_TEXT_BYTES: usize = 128 << 10;

/// One client's WebSocket.
pub(crate) type ServerSocket = WebSocketStream<ShortMessages<TokioIo<Upgraded>>>;

/// A request to become a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocketRequest {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketRequest {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpFailure> {
        let refused = |message: &str| {
            HttpFailure::malformed(StatusCode::BAD_REQUEST, format!("this route is a WebSocket: {message}"))
        };
        if !names(&parts.headers, &CONNECTION, "upgrade") || !names(&parts.headers, &UPGRADE, "websocket") {
            return Err(refused("the request does not ask for an upgrade to one"));
        }
        if !names(&parts.headers, &SEC_WEBSOCKET_VERSION, "13") {
            return Err(refused("its version is 13, in the header Sec-WebSocket-Version"));
        }
        let Some(key) = parts.headers.get(SEC_WEBSOCKET_KEY) else {
            return Err(refused("the header Sec-WebSocket-Key is missing"));
        };
        let accept = derive_accept_key(key.as_bytes());
        let accept = HeaderValue::from_str(&accept).map_err(|_| refused("its key cannot be answered"))?;
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            return Err(refused("this connection cannot change its protocol"));
        };
        Ok(Self { accept, upgrade })
    }
}

impl WebSocketRequest {
    /// Accepts, and spawns what `serve` makes of the socket once the answer is out.
    pub(crate) fn accept<F>(self, serve: impl FnOnce(ServerSocket) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { accept, upgrade } = self;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => serve(over(TokioIo::new(upgraded)).await).await,
                Err(error) => tracing::debug!(%error, "a connection broke before it became a WebSocket"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// Returns the server's end of a WebSocket over `stream`.
async fn over<S>(stream: S) -> WebSocketStream<ShortMessages<S>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_TEXT_BYTES))
        .max_frame_size(Some(MAX_TEXT_BYTES))
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(ShortMessages::new(stream), Role::Server, Some(config)).await
}

/// Tells whether the header's list has `word`.
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let lists = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|named| named.trim().eq_ignore_ascii_case(word))
}

//! Attaching to an execution: the WebSocket handshake (RFC 6455, section 4.1).

use std::time::Duration;

use boxlite_types::wire::{AttachQuery, WINDOW};
use boxlite_types::{Error, ErrorKind, Result};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{StatusCode, Upgraded};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::super::failure;
use super::super::http::HttpClient;

/// How long the server may take to answer the handshake, which it does at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Socket = WebSocketStream<Upgraded>;

/// One execution on one server.
#[derive(Debug)]
pub(super) struct RemoteExecution {
    client: HttpClient,
    id: String,
    execution: String,
}

/// Why an attachment could not be made.
#[derive(Debug)]
pub(super) enum AttachError {
    /// Another attempt may succeed.
    Transient(Error),
    /// No attempt will.
    Permanent(Error),
}

impl RemoteExecution {
    pub(super) fn new(client: HttpClient, id: &str, execution: &str) -> Self {
        Self { client, id: id.to_owned(), execution: execution.to_owned() }
    }

    pub(super) fn server(&self) -> &str {
        self.client.server()
    }

    /// Attaches a client that has received this many bytes of output before.
    ///
    /// The WebSocket is an ordinary request of the HTTP client that changes its protocol, so that TLS, proxies and
    /// the key are what they are for every other request.
    pub(super) async fn attach(&self, received: u64) -> Result<Socket, AttachError> {
        let key = generate_key();
        let request = self
            .client
            .get(&["boxes", &self.id, "executions", &self.execution, "attach"])
            .query(&AttachQuery { received: Some(received) })
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let transient = |error| AttachError::Transient(failure::of_request(error, self.server()));
        let response = timeout(HANDSHAKE_TIMEOUT, request.send())
            .await
            .map_err(|_| AttachError::Transient(failure::silent(self.server())))?
            .map_err(transient)?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            StatusCode::NOT_FOUND => return Err(AttachError::Permanent(self.forgotten())),
            status if status.is_server_error() || status == StatusCode::CONFLICT => {
                return Err(AttachError::Transient(self.client.error_of(response).await));
            }
            _ => return Err(AttachError::Permanent(self.client.error_of(response).await)),
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
        if accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(AttachError::Permanent(failure::foreign(
                self.server(),
                StatusCode::SWITCHING_PROTOCOLS,
            )));
        }
        let upgraded = response.upgrade().await.map_err(transient)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(2 * WINDOW))
            .max_frame_size(Some(2 * WINDOW))
            .write_buffer_size(0);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    /// The server does not know the execution, because it was restarted or has given the execution up.
    fn forgotten(&self) -> Error {
        let message = format!(
            "the server {} no longer knows this command, so its exit status cannot be told; it may still run in box {}",
            self.server(),
            self.id
        );
        Error::new(ErrorKind::Unavailable, message).of_server(self.server())
    }

    /// The connection broke and cannot be made again.
    pub(super) fn lost(&self, cause: Error) -> Error {
        let message = format!(
            "the connection to this command was lost and could not be made again, so its exit status cannot be told; it \
             may still run in box {}",
            self.id
        );
        Error::new(ErrorKind::Unavailable, message).of_server(self.server()).because(cause)
    }
}

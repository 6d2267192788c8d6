//! Where an execution is attached to, and the handshake that does it (RFC 6455, section 4.1).

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

use super::super::client::Client;
use super::super::failure;

/// How long the server may take to answer an attachment, which it does at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) type Socket = WebSocketStream<Upgraded>;

/// One execution on one server.
#[derive(Debug)]
pub(super) struct Place {
    client: Client,
    id: String,
    execution: String,
}

/// Why an attachment could not be made.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another attempt may succeed.
    ForNow(Error),
    /// None will.
    ForGood(Error),
}

impl Place {
    pub(super) fn new(client: Client, id: &str, execution: &str) -> Self {
        Self { client, id: id.to_owned(), execution: execution.to_owned() }
    }

    pub(super) fn server(&self) -> &str {
        self.client.server()
    }

    /// Attaches, with so many bytes of output received before.
    ///
    /// The WebSocket is an ordinary request of the HTTP client that changes its protocol, so that TLS, proxies and
    /// the key are what they are for every other request.
    pub(super) async fn attach(&self, received: u64) -> Result<Socket, Refusal> {
        let key = generate_key();
        let request = self
            .client
            .get(&["boxes", &self.id, "executions", &self.execution, "attach"])
            .query(&AttachQuery { received: Some(received) })
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let for_now = |error| Refusal::ForNow(failure::of_request(error, self.server()));
        let response = timeout(PATIENCE, request.send())
            .await
            .map_err(|_| Refusal::ForNow(failure::silent(self.server())))?
            .map_err(for_now)?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            StatusCode::NOT_FOUND => return Err(Refusal::ForGood(self.forgotten())),
            status if status.is_server_error() || status == StatusCode::CONFLICT => {
                return Err(Refusal::ForNow(self.client.complaint(response).await));
            }
            _ => return Err(Refusal::ForGood(self.client.complaint(response).await)),
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
        if accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Refusal::ForGood(failure::foreign(self.server(), StatusCode::SWITCHING_PROTOCOLS)));
        }
        let upgraded = response.upgrade().await.map_err(for_now)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(2 * WINDOW))
            .max_frame_size(Some(2 * WINDOW))
            .write_buffer_size(0);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    /// The server does not know the execution, because it was started anew or has given it up.
    fn forgotten(&self) -> Error {
        let message = format!(
            "the server {} no longer knows this command, so its exit status cannot be told; it may still run in box {}",
            self.server(),
            self.id
        );
        Error::new(ErrorKind::Unavailable, message).of_server(self.server())
    }

    /// The connection broke and cannot be made again.
    pub(super) fn lost(&self, cause: &Error) -> Error {
        let message = format!(
            "the connection to this command was lost and could not be made again, so its exit status cannot be told; it \
             may still run in box {}: {cause}",
            self.id
        );
        Error::new(ErrorKind::Unavailable, message).of_server(self.server())
    }
}

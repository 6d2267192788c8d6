//! Connections to ports inside a box, through the server.

use std::time::Duration;

use boxlite_types::Result;
use boxlite_types::wire::{TUNNEL_PROTOCOL, TunnelQuery};
use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Method, StatusCode};
use tokio::time::timeout;

use super::{Remote, check_id, failure};
use crate::runtime::Tunnel;
use crate::runtime::operations::BoxNetwork;

/// How long the server may take to answer: as long as the box takes to refuse or to accept the connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

impl BoxNetwork for Remote {
    async fn dial(&self, id: &str, port: u16) -> Result<Tunnel> {
        check_id(id)?;
        let server = self.client.server();
        let request = self
            .client
            .request(Method::GET, &["boxes", id, "network", "tunnel"])
            .query(&TunnelQuery { port })
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, TUNNEL_PROTOCOL);
        let response = timeout(ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|_| failure::silent(server))?
            .map_err(|error| failure::of_request(error, server))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let is_foreign = response.status().is_success();
            return Err(if is_foreign {
                failure::foreign(server, response.status())
            } else {
                self.client.error_of(response).await
            });
        }
        let upgraded = response.upgrade().await.map_err(|error| failure::of_request(error, server))?;
        let (output, input) = tokio::io::split(upgraded);
        Ok(Tunnel { output: Box::new(output), input: Box::new(input) })
    }
}

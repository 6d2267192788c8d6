//! A connection to a port inside a box.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// A TCP connection to a service inside a box. Dropping it closes the connection.
pub struct Tunnel {
    /// The service's bytes, until it ends its side.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Where it is answered; shutting it down ends this side of the connection alone.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Relays between the service and `peer` until the service has ended its side, all of which the peer then has.
    ///
    /// # Errors
    /// When either side breaks off.
    pub async fn relay(self, peer: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let Self { mut output, mut input } = self;
        let (mut from_peer, mut to_peer) = tokio::io::split(peer);
        let down = async {
            tokio::io::copy(&mut output, &mut to_peer).await?;
            to_peer.shutdown().await
        };
        let up = async {
            let ended = async {
                tokio::io::copy(&mut from_peer, &mut input).await?;
                input.shutdown().await
            };
            match ended.await {
                // The service may have more to say.
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            // The service's last bytes count more than that it took no more.
            biased;
            ended = down => ended,
            broken = up => Err(broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn pair() -> (Tunnel, tokio::io::DuplexStream) {
        let (near, service) = tokio::io::duplex(64);
        let (output, input) = tokio::io::split(near);
        (Tunnel { output: Box::new(output), input: Box::new(input) }, service)
    }

    #[tokio::test]
    async fn the_answer_arrives_although_the_question_has_ended() {
        let (tunnel, mut service) = pair();
        let (peer, mut client) = tokio::io::duplex(64);
        let relay = tokio::spawn(tunnel.relay(peer));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        service.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        service.write_all(b"answer").await.unwrap();
        drop(service);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        relay.await.unwrap().unwrap();
    }

    /// Mutation tried: without `to_peer.shutdown()` the client waits for ever.
    #[tokio::test]
    async fn the_end_of_the_service_is_the_end() {
        let (tunnel, mut service) = pair();
        let (peer, mut client) = tokio::io::duplex(64);
        let relay = tokio::spawn(tunnel.relay(peer));
        service.write_all(b"bye").await.unwrap();
        drop(service);
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "bye");
        relay.await.unwrap().unwrap();
    }
}

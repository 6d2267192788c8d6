//! The other end of a connection, playing what a test tells it.

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Gives the same answer to everybody and notes what it was asked.
pub(super) struct Peer {
    pub(super) url: String,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    pub(super) async fn answering(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url(&listener);
        let (send, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = head(&mut stream).await;
                let _ = send.send(head);
                let _ = stream.write_all(&answer).await;
                // Reads on, so that what is on its way does not reset the connection.
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        Self { url, requests }
    }

    pub(super) async fn asked(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }
}

pub(super) fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// A request's head.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    String::from_utf8(head).unwrap()
}

pub(super) fn answer(status: &str, content: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(super) fn json(status: &str, body: &impl Serialize) -> Vec<u8> {
    answer(status, "application/json", &serde_json::to_vec(body).unwrap())
}

/// Accepts a WebSocket; returns its request's head as well.
pub(super) async fn websocket(listener: &TcpListener) -> (String, WebSocketStream<TcpStream>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let head = head(&mut stream).await;
    let key = head
        .lines()
        .find_map(|line| {
            line.to_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned())
        })
        .expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    (head, WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
}

//! Tunnels: over the socket, over a WebSocket, and by a token alone.

use futures::{SinkExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::home::Home;
use crate::serving::Server;

/// Sends a `CONNECT` and returns the answer's status and the connection.
async fn connect(server: &Server, target: &str, header: &str) -> (u16, TcpStream) {
    let host = server.url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {host}\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"question");
}

#[tokio::test]
async fn a_port_of_a_box_is_reached_in_every_way() {
    let Some(home) = Home::able() else { return };
    let server = Server::start(&home, &[]);
    let script = "busybox nc -ll -p 7000 -e cat & busybox nc -ll -p 7001 -e cat; wait";
    home.run(&["run", "-d", "--name", "b", "--network", "none", &home.image("mini"), "sh", "-c", script])
        .ok();
    let path = "/v1/boxes/b/network/tunnel?port=7000";

    // Until it listens, the refusal is an answer and no tunnel.
    let listening = async || {
        let (status, mut stream) = connect(&server, path, "").await;
        match status {
            200 => echoes(&mut stream).await,
            refused => assert_eq!(refused, 404),
        }
        (status == 200).then_some(())
    };
    boxlite_testkit::deadline::within_async(boxlite_testkit::deadline::TEST_TIMEOUT, "an echo", listening)
        .await;
    assert_eq!(connect(&server, "/v1/default/boxes/b/network/tunnel?port=1", "").await.0, 404);
    assert_eq!(connect(&server, "/v1/boxes/b/network/tunnel?port=0", "").await.0, 400);
    assert_eq!(connect(&server, "/v1/boxes/none/network/tunnel?port=1", "").await.0, 404);

    let url = format!("{}{path}", server.url.replace("http://", "ws://"));
    let (mut socket, _) = connect_async(&url).await.unwrap();
    let long = vec![7; 300_000];
    socket.send(Message::binary(long.clone())).await.unwrap();
    let mut echoed = Vec::new();
    while echoed.len() < long.len() {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => echoed.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert!(echoed == long);
    socket.close(None).await.unwrap();

    // What a client sends along with a request that is refused is no request of its own.
    let host = server.url.strip_prefix("http://").unwrap();
    for refused in [
        "CONNECT /v1/boxes/b/network/tunnel?port=1 HTTP/1.1\r\n",
        "CONNECT /v1/boxes/b/network/tunnel?port=7000 HTTP/1.1\r\nContent-Length: 0\r\n",
        "GET /v1/boxes/b/network/tunnel?port=1 HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: tcp\r\n",
    ] {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let smuggled = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(format!("{refused}Host: {host}\r\n\r\n{smuggled}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(
            (answer.matches("HTTP/1.1 4").count(), answer.matches("HTTP/1.1 ").count()),
            (1, 1),
            "{answer}"
        );
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }

    // Before, what a client sent last was lost when it closed: the service was not given the time to take it.
    let taken = "busybox nc -l -p 7002 >/root/taken; wc -c </root/taken";
    let begun = server.exec("b", taken).await;
    let url = url.replace("7000", "7002");
    let opened = async || connect_async(&url).await.ok();
    let (mut socket, _) =
        boxlite_testkit::deadline::within_async(boxlite_testkit::deadline::TEST_TIMEOUT, "a service", opened)
            .await;
    socket.send(Message::binary(long.clone())).await.unwrap();
    socket.close(None).await.unwrap();
    let said = crate::executions::collect(crate::executions::attach(&server, &begun).await).await;
    assert_eq!(said.0.trim(), "300000");

    let tunnel = server.post(path, json!({})).await;
    let uri = tunnel["uri"].as_str().unwrap().to_owned();
    let authority = uri.strip_prefix("http://").unwrap();
    for _ in 0..2 {
        let (status, mut stream) = connect(&server, authority, "").await;
        assert_eq!(status, 200);
        echoes(&mut stream).await;
    }
    let (_, host) = authority.split_once('@').unwrap();
    assert_eq!(connect(&server, &format!("{}@{host}", "0".repeat(64)), "").await.0, 403);
    let (status, _) = server.ask(Method::DELETE, path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(connect(&server, authority, "").await.0, 403, "a revoked grant");
    assert_eq!(connect(&server, host, "").await.0, 404, "no proxy for everybody");
}

//! Commands: attached to late, again, by several and by many at once.

use std::collections::HashSet;

use boxlite_testkit::deadline::{self, TEST_TIMEOUT};
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::home::Home;
use crate::serving::Server;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn attach(server: &Server, path: &str) -> Socket {
    try_attach(server, path).await.unwrap_or_else(|error| panic!("attaching to {path}: {error}"))
}

async fn try_attach(server: &Server, path: &str) -> Result<Socket, Error> {
    let (path, query) =
        path.split_once('?').map_or((path, String::new()), |(path, query)| (path, format!("?{query}")));
    let url = format!("{}{path}/attach{query}", server.url.replace("http://", "ws://"));
    connect_async(url).await.map(|(socket, _)| socket)
}

/// Both outputs and the exit status, read to the end of the connection.
pub(crate) async fn collect(mut socket: Socket) -> (String, String, Option<i64>) {
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(frame) => {
                if frame[0] == 1 { &mut out } else { &mut err }.extend_from_slice(&frame[1..]);
            }
            Message::Text(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                status = frame["exit_code"].as_i64().or(status);
            }
            _ => {}
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), status)
}

async fn served(home: &Home, boxes: usize) -> (Server, Vec<String>) {
    let server = Server::start(home, &["--allow-path", home.layout().to_str().unwrap()]);
    let names: Vec<String> = (0..boxes).map(|n| format!("box-{n}")).collect();
    for name in &names {
        server.post("/v1/boxes", json!({"image": home.image("mini"), "name": name, "memory_mib": 128})).await;
        server.post(&format!("/v1/boxes/{name}/start"), json!({})).await;
    }
    (server, names)
}

/// Mutation tried: with `passed_on` for `sent` in the session, what the client goes on after is not there any more (409).
#[tokio::test]
async fn a_client_that_comes_back_loses_nothing() {
    let Some(home) = Home::able() else { return };
    let (server, _) = served(&home, 1).await;
    let numbers = |count: u32| (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n") + "\n";

    // Leaves in order after a while, again and again; what was under way is read to the end of the connection. Each
    // time it asks for more than it waits for, so that the command ends during no earlier attachment than the fourth.
    let path = server.exec("box-0", "for n in 1 2 3 4; do read x; seq 1 50000; done; exit 9").await;
    let (mut had, mut status, mut attachments) = (Vec::new(), None, 0);
    while status.is_none() {
        attachments += 1;
        let mut socket = attach(&server, &path).await;
        let _ = socket.send(Message::binary(b"more\n".to_vec())).await;
        let mut frames = 0;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(frame) => had.extend_from_slice(&frame[1..]),
                Message::Text(text) => {
                    status = serde_json::from_str::<serde_json::Value>(&text).unwrap()["exit_code"].as_i64();
                }
                _ => {}
            }
            frames += 1;
            if frames == 3 {
                let _ = socket.send(Message::Close(None)).await;
            }
        }
    }
    assert_eq!((status, String::from_utf8(had).unwrap() == numbers(50_000).repeat(4)), (Some(9), true));
    assert!(attachments >= 4, "{attachments}");

    // Breaks off without a word, half of what was sent lost on the way, and says how much it had.
    let path = server.exec("box-0", "seq 1 200000").await;
    let (mut had, mut ended) = (Vec::new(), false);
    while !ended {
        let mut socket = attach(&server, &format!("{path}?received={}", had.len())).await;
        // Said at the end of a connection that then breaks, it may be lost, and the server waits for it.
        let ack = json!({"type": "ack", "output": had.len()}).to_string();
        let _ = socket.send(Message::text(ack)).await;
        let (mut came, mut frames) = (Vec::new(), 0);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(frame) => {
                    came.extend_from_slice(&frame[1..]);
                    frames += 1;
                }
                Message::Text(text) => ended |= text.contains("exit_code"),
                _ => {}
            }
            if frames == 4 {
                break;
            }
        }
        had.extend_from_slice(&came[..if ended { came.len() } else { came.len().div_ceil(2) }]);
    }
    assert!(String::from_utf8(had).unwrap() == numbers(200_000));
}

/// With the seat given back after the connection an attachment is refused (409), but only on a loaded machine and seldom.
#[tokio::test]
async fn a_client_that_saw_its_connection_end_may_come_back_at_once() {
    let Some(home) = Home::able() else { return };
    let (server, _) = served(&home, 1).await;
    let path = server.exec("box-0", "read x").await;
    for _ in 0..300 {
        let mut socket = attach(&server, &path).await;
        socket.send(Message::Close(None)).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
}

#[tokio::test]
async fn one_client_at_a_time_and_late_ones_get_everything() {
    let Some(home) = Home::able() else { return };
    let (server, _) = served(&home, 1).await;
    let path = server.exec("box-0", "read x; echo $x; echo no >&2").await;
    let mut first = attach(&server, &path).await;
    let refused = try_attach(&server, &path).await;
    assert!(
        matches!(&refused, Err(Error::Http(response)) if response.status().as_u16() == 409),
        "{refused:?}"
    );
    assert_eq!(server.get(&path).await["attached"], true);
    first.send(Message::binary(b"word\n".to_vec())).await.unwrap();
    first.send(Message::text("{\"type\":\"nonsense\"}")).await.unwrap();
    assert_eq!(collect(first).await, ("word\n".into(), "no\n".into(), Some(0)));
    let info = server.get(&path).await;
    assert_eq!((info["status"].as_str(), info["exit_code"].as_i64()), (Some("completed"), Some(0)));

    // Ended before anybody came: its output waits.
    let path = server.exec("box-0", "echo early; kill -9 $$").await;
    deadline::within_async(TEST_TIMEOUT, "the command to end", async || {
        (server.get(&path).await["status"] != "running").then_some(())
    })
    .await;
    assert_eq!(collect(attach(&server, &path).await).await, ("early\n".into(), String::new(), Some(137)));

    // Killed: gone for everybody but the client that was on its way.
    let path = server.exec("box-0", "sleep 1000").await;
    assert_eq!(server.ask(Method::DELETE, &path, None).await.0.as_u16(), 204);
    assert_eq!(server.ask(Method::GET, &path, None).await.0.as_u16(), 404);
    assert_eq!(collect(attach(&server, &path).await).await.2, Some(137));
    let other = path.replace("box-0", "box-1");
    assert_eq!(server.ask(Method::GET, &other, None).await.0.as_u16(), 404, "another box's execution");
}

/// Before, with messages of at most 4 MiB, the connection was reset and `wc` said 0.
#[tokio::test]
async fn input_in_one_long_message_arrives_whole() {
    let Some(home) = Home::able() else { return };
    let (server, _) = served(&home, 1).await;
    let path = server.exec("box-0", "wc -c").await;
    let mut socket = attach(&server, &path).await;
    socket.send(Message::binary(vec![b'x'; 6 << 20])).await.unwrap();
    socket.send(Message::text("{\"type\":\"stdin_eof\"}")).await.unwrap();
    assert_eq!(collect(socket).await, ("6291456\n".into(), String::new(), Some(0)));

    let path = server.exec("box-0", "cat").await;
    let mut socket = attach(&server, &path).await;
    socket.send(Message::text("x".repeat(1 << 20))).await.unwrap();
    let mut last = None;
    while let Some(Ok(message)) = socket.next().await {
        last = Some(message);
    }
    assert!(matches!(&last, Some(Message::Close(Some(close))) if u16::from(close.code) == 1009), "{last:?}");
}

/// Mutations tried: without `input_broke_off` in the session, `wc` counts a part and exits 0; without `NeededInput::Partial`
/// in the shim's `abandon`, the file `whole` appears.
#[tokio::test]
async fn input_that_broke_off_never_ends_as_success() {
    let Some(home) = Home::able() else { return };
    let (mut server, _) = served(&home, 1).await;
    let path = server.exec("box-0", "wc -c").await;
    let mut socket = attach(&server, &path).await;
    socket.send(Message::binary(vec![b'x'; 100_000])).await.unwrap();
    // The connection breaks without a close frame.
    drop(socket);
    deadline::within_async(TEST_TIMEOUT, "the server to notice", async || {
        (server.get(&path).await["attached"] == false).then_some(())
    })
    .await;
    let mut socket = attach(&server, &path).await;
    socket.send(Message::text("{\"type\":\"stdin_eof\"}")).await.unwrap();
    assert_eq!(collect(socket).await, (String::new(), String::new(), Some(137)));
    let info = server.get(&path).await;
    assert_eq!(info["exit_code"], 137);
    assert!(info["error_message"].as_str().unwrap().contains("did not arrive whole"), "{info}");

    // Nor does it where the server itself is gone.
    let path =
        server.exec("box-0", "echo $$ >/root/.shell; cat >/root/part && mv /root/part /root/whole").await;
    let mut socket = attach(&server, &path).await;
    socket.send(Message::binary(b"half".to_vec())).await.unwrap();
    deadline::within_async(TEST_TIMEOUT, "the input to arrive", async || {
        let seen = home.run(&["exec", "box-0", "sh", "-c", "cat /root/part; pidof cat"]);
        seen.text().starts_with("half").then_some(())
    })
    .await;
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    // The shell outlives `cat`, and makes the file where it may.
    let is_there = ["exec", "box-0", "sh", "-c", "pidof cat || kill -0 $(cat /root/.shell)"];
    deadline::within_async(TEST_TIMEOUT, "the command to be gone", async || {
        (!home.run(&is_there).status.success()).then_some(())
    })
    .await;
    assert_eq!(home.run(&["exec", "box-0", "ls", "/root"]).ok(), "part\n");
}

#[tokio::test]
async fn many_commands_at_once_lose_no_output() {
    const COMMANDS: usize = 500;
    let Some(home) = Home::able() else { return };
    let (server, names) = served(&home, 20).await;
    let (server, names) = (&server, &names);
    let run = |n: usize| async move {
        let path = server
            .exec(&names[n % names.len()], &format!("echo out-{n}; echo err-{n} >&2; exit {}", n % 7))
            .await;
        assert_eq!(
            collect(attach(server, &path).await).await,
            (format!("out-{n}\n"), format!("err-{n}\n"), Some((n % 7) as i64))
        );
        path
    };
    let paths: HashSet<String> = join_all((0..COMMANDS).map(run)).await.into_iter().collect();
    assert_eq!(paths.len(), COMMANDS);
}

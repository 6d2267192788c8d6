//! How a server stops, and how the next one takes over its socket: no connection is refused, and nothing is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use boxlite_testkit::deadline::{TEST_TIMEOUT, eventually, within_async};
use boxlite_testkit::oracle;
use boxlite_testkit::program::Output;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::executions::{Socket, attach, collect};
use crate::home::Home;
use crate::serving::Server;

/// One request over a connection of its own; true when it was answered with 200.
fn is_answered(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// A client that connects while one server ends and the next begins waits for its answer.
#[test]
fn restarts_on_a_handed_over_socket_refuse_no_connection() {
    let home = Home::bare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let told = UnixDatagram::bind(home.path().join("notify")).unwrap();
    told.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let says = |expected: &str| {
        let mut state = [0; 64];
        let length = told.recv(&mut state).expect("a state");
        assert_eq!(std::str::from_utf8(&state[..length]).unwrap(), expected);
    };
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients = [(); 4].map(|()| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match is_answered(address) {
                        Ok(true) => answered.fetch_add(1, Ordering::Relaxed),
                        other => panic!("after {} answers: {other:?}", answered.load(Ordering::Relaxed)),
                    };
                }
            })
        });
        for _ in 0..6 {
            let mut server = Server::start_handed(&home, &listener, &[]);
            assert_eq!(server.url, format!("http://{address}"));
            says("READY=1");
            let before = answered.load(Ordering::Relaxed);
            eventually("answers", || (answered.load(Ordering::Relaxed) > before + 50).then_some(()));
            server.signal(Signal::TERM);
            says("STOPPING=1");
            assert!(server.wait().success());
        }
        let last = Server::start_handed(&home, &listener, &[]);
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("answers alone");
        }
        drop(last);
    });
    assert!(answered.load(Ordering::Relaxed) > 300);
}

#[test]
fn systemd_hands_its_socket_over() {
    const ACTIVATE: &str = "systemd-socket-activate";
    if Command::new(ACTIVATE).arg("--version").stdout(Stdio::null()).status().is_err() {
        oracle::skip_even_in_ci("there is no systemd-socket-activate on this machine");
        return;
    }
    let home = Home::bare();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let serve = home.command(["serve"]);
    let mut command = Command::new(ACTIVATE);
    command.args(["--fdname=boxlite", "-l", &address.to_string()]);
    for (name, value) in serve.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
            command.arg("-E").arg(name);
        }
    }
    command.arg(serve.get_program()).args(serve.get_args());
    let mut child = command.stdout(Stdio::null()).spawn().expect("starting it");
    // It starts the server with the first connection, which waits for that.
    eventually("an answer", || is_answered(address).ok().filter(|answered| *answered));
    assert!(is_answered(address).unwrap());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Reads until the close frame, and returns the output and the close code.
async fn until_closed(socket: &mut Socket) -> (String, Option<CloseCode>) {
    let (mut said, mut code) = (Vec::new(), None);
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(frame) => said.extend_from_slice(&frame[1..]),
            Message::Close(frame) => code = frame.map(|frame| frame.code),
            _ => {}
        }
    }
    (String::from_utf8(said).unwrap(), code)
}

/// What it had sent until it closed has reached the command, which goes on.
#[tokio::test]
async fn a_client_that_is_sent_away_goes_on_with_the_next_server() {
    let Some(home) = Home::able() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first =
        Server::start_handed(&home, &listener, &["--allow-path", home.layout().to_str().unwrap()]);
    first.post("/v1/boxes", json!({"image": home.image("mini"), "name": "box", "memory_mib": 128})).await;
    let path = first.exec("box", "cat; echo done; exit 5").await;
    let mut socket = attach(&first, &path).await;
    socket.send(Message::binary(b"one\n".to_vec())).await.unwrap();
    let echo = socket.next().await.unwrap().unwrap();
    assert_eq!(&echo.into_data()[1..], b"one\n");
    first.signal(Signal::TERM);
    let began = Instant::now();
    let _ = socket.send(Message::binary(b"two\n".to_vec())).await;
    let (mut said, code) = until_closed(&mut socket).await;
    assert_eq!(code, Some(CloseCode::Away));
    assert!(first.wait().success());
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "it was sent away at once, not after the time to finish"
    );

    let second = Server::start_handed(&home, &listener, &[]);
    let mut socket = attach(&second, &path).await;
    socket.send(Message::binary(b"three\n".to_vec())).await.unwrap();
    socket.send(Message::text(json!({"type": "stdin_eof"}).to_string())).await.unwrap();
    let (rest, _, status) = collect(socket).await;
    said.push_str(&rest);
    assert_eq!((said.as_str(), status), ("two\nthree\ndone\n", Some(5)));
}

/// Before: each of these streams kept the server for 10 s, although the next one has what they show.
///
/// Mutations tried: the log and the wait left as they were; held commands closed after the time to finish.
#[tokio::test]
async fn a_stop_waits_for_no_stream_that_the_next_server_has() {
    let Some(home) = Home::able() else { return };
    let mut server = Server::start(&home, &["--allow-path", home.layout().to_str().unwrap()]);
    server.post("/v1/boxes", json!({"image": home.image("mini"), "name": "box", "memory_mib": 128})).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let path = server.exec("box", "exec cat").await;
        sockets.push(attach(&server, &path).await);
    }
    let log =
        server.request(Method::GET, "/v1/runtime/boxes/box/logs").query(&[("options", r#"{"follow":true}"#)]);
    let wait = server.request(Method::POST, "/v1/runtime/boxes/box/wait");
    let streams = [log, wait].map(|request| {
        tokio::spawn(async move {
            let response = request.send().await.expect("an answer");
            (response.status().as_u16(), response.text().await.expect("a whole answer"))
        })
    });
    let waiting = home.command(["--url", &server.url, "wait", "box"]).spawn().expect("starting boxlite");
    let connections = async || {
        let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let samples =
            metrics.lines().filter_map(|line| line.strip_prefix("boxlite_connections{")?.split_once("} "));
        let open: u32 = samples.map(|(_, count)| count.parse::<u32>().expect("a count")).sum();
        // The one that asks is another.
        (open >= 7).then_some(())
    };
    within_async(TEST_TIMEOUT, "all of them to be there", connections).await;
    let began = Instant::now();
    server.signal(Signal::TERM);
    for socket in &mut sockets {
        assert_eq!(until_closed(socket).await.1, Some(CloseCode::Away));
    }
    for stream in streams {
        let (status, said) = stream.await.unwrap();
        assert!(status == 503 || said.contains("failed"), "{status} {said}");
        assert!(said.contains("upstream_unavailable") && said.contains("stopping"), "{status} {said}");
    }
    assert!(server.wait().success());
    println!("the server ended after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    // Our own client goes on waiting with the next server.
    let _next = Server::start_on(&home, server.port(), &[], &[]);
    home.run(&["stop", "-t", "1", "box"]).ok();
    let waited = Output::of(waiting).ok();
    assert!(waited.trim().parse::<i32>().is_ok(), "{waited}");
}

//! Executions whose connection is played by the test.

use boxlite_types::wire::{ClientFrame, ErrorBody, ExecutionCreated, ServerFrame, WINDOW};
use boxlite_types::{Error, ErrorKind, Execution, OutputStream, WindowSize};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::super::{HttpClient, RemoteOptions, execution};
use super::peer::{answer, head, url, websocket};

type Socket = WebSocketStream<TcpStream>;

async fn begin() -> (TcpListener, Execution) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = HttpClient::new(&RemoteOptions { url: url(&listener), api_key: None }).unwrap();
    let created = ExecutionCreated { execution_id: "e1".into(), started: true, stdin: true };
    (listener, execution::connect(&client, "web", &created))
}

async fn say(socket: &mut Socket, frame: ServerFrame) {
    socket.send(Message::text(serde_json::to_string(&frame).unwrap())).await.unwrap();
}

async fn ack(socket: &mut Socket, stdin: u64) {
    say(socket, ServerFrame::Ack { stdin, closed: false }).await;
}

async fn exit(socket: &mut Socket, exit_code: i32) {
    say(socket, ServerFrame::Exit { exit_code, reason: None }).await;
}

async fn output(socket: &mut Socket, channel: u8, bytes: &[u8]) {
    socket.send(Message::Binary([&[channel], bytes].concat().into())).await.unwrap();
}

/// The next input or frame of the client.
async fn heard(socket: &mut Socket) -> Result<Vec<u8>, ClientFrame> {
    loop {
        match socket.next().await.expect("an open connection").expect("a frame") {
            Message::Binary(bytes) => return Ok(bytes.to_vec()),
            Message::Text(text) => return Err(serde_json::from_str(&text).unwrap()),
            _ => {}
        }
    }
}

/// So many bytes of input, whatever frames they come in.
async fn input(socket: &mut Socket, length: usize) -> Vec<u8> {
    let mut input = Vec::new();
    while input.len() < length {
        input.extend(heard(socket).await.expect("input"));
    }
    input
}

async fn give(stdin: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stdin.write_all(bytes).await.unwrap();
}

#[tokio::test]
async fn streams_signals_and_the_end_pass() {
    let (listener, mut execution) = begin().await;
    let server = async {
        let (head, mut socket) = websocket(&listener).await;
        assert!(head.starts_with("GET /v1/boxes/web/executions/e1/attach?received=0 HTTP/1.1"), "{head}");
        ack(&mut socket, 0).await;
        assert_eq!(input(&mut socket, 2).await, b"in");
        assert_eq!(heard(&mut socket).await, Err(ClientFrame::StdinEof));
        assert_eq!(heard(&mut socket).await, Err(ClientFrame::Signal { sig: 15 }));
        assert_eq!(heard(&mut socket).await, Err(ClientFrame::Resize { cols: 80, rows: 24 }));
        socket.send(Message::text(r#"{"type":"of another version"}"#)).await.unwrap();
        output(&mut socket, 1, b"out").await;
        output(&mut socket, 2, b"err").await;
        exit(&mut socket, 7).await;
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))), "a good-bye");
    };
    let client = async {
        let mut stdin = execution.stdin.take().unwrap();
        give(&mut stdin, b"in").await;
        stdin.shutdown().await.unwrap();
        // The connection may be up before that is sent; the order is only fixed once it was.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        execution.control.signal(15).await.unwrap();
        execution.control.resize(WindowSize { rows: 24, columns: 80 }).await.unwrap();
        let chunks: Vec<_> = execution.output.by_ref().map(|chunk| chunk.unwrap()).collect().await;
        let told: Vec<_> = chunks.iter().map(|chunk| (chunk.stream, &chunk.bytes[..])).collect();
        assert_eq!(told, [(OutputStream::Stdout, &b"out"[..]), (OutputStream::Stderr, b"err")]);
        assert_eq!(execution.control.wait().await.unwrap().code, 7);
        execution.control.signal(9).await.unwrap();
    };
    tokio::join!(server, client);
}

/// Mutation tried: without `received` in the second request nothing can follow the first three bytes; with input
/// counted as delivered once it was sent, the second connection hears nothing of `lost`.
#[tokio::test]
async fn a_connection_that_breaks_is_made_again_and_loses_nothing() {
    let (listener, mut execution) = begin().await;
    let server = async {
        let (_, mut socket) = websocket(&listener).await;
        ack(&mut socket, 0).await;
        output(&mut socket, 1, b"one").await;
        assert_eq!(input(&mut socket, 8).await, b"keptlost");
        ack(&mut socket, 4).await;
        drop(socket);
        let (head, mut socket) = websocket(&listener).await;
        assert!(head.contains("received=3 "), "{head}");
        ack(&mut socket, 4).await;
        assert_eq!(input(&mut socket, 4).await, b"lost");
        assert_eq!(heard(&mut socket).await, Err(ClientFrame::StdinEof));
        drop(socket);
        let (head, mut socket) = websocket(&listener).await;
        assert!(head.contains("received=3 "), "{head}");
        ack(&mut socket, 8).await;
        assert_eq!(heard(&mut socket).await, Err(ClientFrame::StdinEof), "said anew");
        output(&mut socket, 1, b"two").await;
        exit(&mut socket, 0).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let client = async {
        let mut stdin = execution.stdin.take().unwrap();
        give(&mut stdin, b"keptlost").await;
        stdin.shutdown().await.unwrap();
        let chunks: Vec<_> = execution.output.by_ref().map(|chunk| chunk.unwrap().bytes).collect().await;
        assert_eq!(chunks.concat(), b"onetwo");
        assert_eq!(execution.control.wait().await.unwrap().code, 0);
    };
    tokio::join!(server, client);
}

/// Mutation tried: with a lost execution taken for an ended one this is a status of 0.
#[tokio::test]
async fn a_server_that_forgot_the_command_tells_no_status() {
    let (listener, mut execution) = begin().await;
    let server = async {
        let (_, mut socket) = websocket(&listener).await;
        ack(&mut socket, 0).await;
        output(&mut socket, 1, b"some").await;
        drop(socket);
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(&answer("404 Not Found", "application/json", b"{}")).await.unwrap();
    };
    let client = async {
        let chunks: Vec<_> = execution.output.by_ref().map(|chunk| chunk.unwrap().bytes).collect().await;
        assert_eq!(chunks.concat(), b"some");
        for _ in 0..2 {
            let error = execution.control.wait().await.unwrap_err();
            assert_eq!((error.kind(), error.server().is_some()), (ErrorKind::Unavailable, true), "{error}");
        }
        assert!(execution.control.signal(15).await.is_err());
        let mut stdin = execution.stdin.take().unwrap();
        assert_eq!(stdin.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn an_end_without_a_status_is_the_servers_error() {
    let (listener, execution) = begin().await;
    let server = async {
        let (_, mut socket) = websocket(&listener).await;
        let error = Error::new(ErrorKind::Unavailable, "the box ended while it was being used");
        let error = ErrorBody::new(&error, "UpstreamUnavailableError", "upstream_unavailable");
        say(&mut socket, ServerFrame::Failed { error }).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let (error, ()) = tokio::join!(execution.control.wait(), server);
    let error = error.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.server()), ("the box ended while it was being used", None));
}

/// Mutation tried: with output acknowledged as it arrives, the acknowledgement comes before anything is taken.
#[tokio::test]
async fn output_is_acknowledged_as_it_is_taken_and_input_waits_for_its_turn() {
    let (listener, mut execution) = begin().await;
    let (_, mut socket) = websocket(&listener).await;
    ack(&mut socket, 0).await;
    for _ in 0..8 {
        output(&mut socket, 1, &vec![b'x'; WINDOW / 8]).await;
    }
    let mut stdin = execution.stdin.take().unwrap();
    let fed = tokio::spawn(async move {
        let data = vec![b'y'; 3 * WINDOW];
        stdin.write_all(&data).await.unwrap();
    });
    assert_eq!(input(&mut socket, WINDOW).await.len(), WINDOW);
    let quiet = std::time::Duration::from_millis(200);
    assert!(
        tokio::time::timeout(quiet, heard(&mut socket)).await.is_err(),
        "neither input nor acknowledgement"
    );
    assert!(!fed.is_finished());
    for _ in 0..8 {
        execution.output.next().await.unwrap().unwrap();
    }
    let mut said = 0;
    while said < WINDOW as u64 {
        let Err(ClientFrame::Ack { output }) = heard(&mut socket).await else { panic!("no acknowledgement") };
        assert!(output > said);
        said = output;
    }
    ack(&mut socket, WINDOW as u64).await;
    assert_eq!(input(&mut socket, WINDOW).await.len(), WINDOW);
    say(&mut socket, ServerFrame::Ack { stdin: WINDOW as u64, closed: true }).await;
    assert!(fed.await.unwrap_err().is_panic(), "its input is closed");
}

/// Mutation tried: without the good-bye the server sees a connection that broke, and keeps the command for it.
#[tokio::test]
async fn detaching_is_told_to_the_server() {
    for asked in [true, false] {
        let (listener, execution) = begin().await;
        let server = async {
            let (_, mut socket) = websocket(&listener).await;
            ack(&mut socket, 0).await;
            assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
            while let Some(Ok(_)) = socket.next().await {}
        };
        let client = async {
            if asked {
                execution.control.detach().await.unwrap();
            } else {
                drop(execution);
            }
        };
        tokio::join!(server, client);
    }
}

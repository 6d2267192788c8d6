//! Commands that outlive their server: their box holds them, and every server of the home finds them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use boxlite_testkit::deadline::{self, TEST_TIMEOUT};
use boxlite_testkit::oracle;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::executions::{Socket, attach, collect};
use crate::home::Home;
use crate::serving::{Server, beside, client_program, resident};

async fn served(home: &Home) -> Server {
    let server = Server::start(home, &["--allow-path", home.layout().to_str().unwrap()]);
    server.post("/v1/boxes", json!({"image": home.image("mini"), "name": "box", "memory_mib": 128})).await;
    server.post("/v1/boxes/box/start", json!({})).await;
    server
}

fn numbers(count: u32) -> String {
    (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n") + "\n"
}

/// What a published client has of a command whose server is killed with KILL while it prints, and started anew.
async fn had_by(client: &mut Command, home: &Home) -> (i64, String) {
    let mut server = served(home).await;
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do seq 1 3000; sleep 0.3; done; exit 7";
    client.args([&server.url, "box", script]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("starting a client");
    let mut said = BufReader::new(client.stdout.take().expect("a pipe"));
    let mut first = String::new();
    said.read_line(&mut first).expect("its first line");
    assert_eq!(first, "began\n");
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start_on(home, server.port(), &[], &[]);
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("its last line");
    assert!(client.wait().expect("a client").success());
    drop(server);
    serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{error}: {rest}"))
}

/// Whether a client has the status and all output of that command. It does not acknowledge, so the piece that was on its way
/// when the server was killed may have come twice.
fn is_whole((code, output): &(i64, String)) -> bool {
    let (output, expected) = (output.as_bytes(), numbers(3000).repeat(10).into_bytes());
    let same = output.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let Some(again) = output.len().checked_sub(expected.len()) else { return false };
    *code == 7 && again <= (64 << 10).min(same) && output[same..] == expected[same - again..]
}

/// Before, the client retried 404 for 270 s and said -1.
#[tokio::test]
async fn the_published_python_client_goes_on_with_the_next_server() {
    let Some(home) = Home::able() else { return };
    let Some(python) = client_program("bin/python") else { return };
    let had = had_by(Command::new(python).arg(beside("outliving.py")), &home).await;
    assert!(is_whole(&had), "{} and {} bytes", had.0, had.1.len());
}

#[tokio::test]
async fn the_published_node_client_goes_on_with_the_next_server() {
    let Some(home) = Home::able() else { return };
    if Command::new("node").arg("--version").output().is_err() {
        oracle::skip_even_in_ci("there is no node on this machine");
        return;
    }
    let Some(package) = client_program("node/node_modules/@boxlite-ai/boxlite") else { return };
    let mut node = Command::new("node");
    node.arg(beside("outliving.mjs")).arg(package.join("dist/index.js"));
    let had = had_by(&mut node, &home).await;
    assert!(is_whole(&had), "{} and {} bytes", had.0, had.1.len());
}

/// The next message, if the server has more to say; it may not be silent for long. Its pings are no messages here.
async fn next(socket: &mut Socket) -> Option<Message> {
    let next = async {
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_ping() {
                return Some(message);
            }
        }
        None
    };
    timeout(TEST_TIMEOUT, next).await.expect("a server that says something")
}

#[tokio::test]
async fn a_second_server_goes_on_where_the_first_was_killed() {
    let Some(home) = Home::able() else { return };
    let mut first = served(&home).await;
    let second = Server::start(&home, &[]);
    let path = first.exec("box", "seq 1 100000; read x; echo $x; exit 9").await;
    let mut socket = attach(&first, &format!("{path}?received=0")).await;
    let shown = second.get(&path).await;
    assert_eq!((shown["status"].as_str(), shown["attached"].as_bool()), (Some("running"), Some(true)));
    // The input is acknowledged by the box, and so is not lost with the server.
    socket.send(Message::binary(b"wo".to_vec())).await.unwrap();
    let (mut had, mut given) = (Vec::new(), 0);
    while given < 2 || had.len() < 100_000 {
        match next(&mut socket).await.unwrap() {
            Message::Binary(frame) => had.extend_from_slice(&frame[1..]),
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                given = frame["stdin"].as_u64().unwrap_or(given);
            }
            _ => {}
        }
    }
    socket.send(Message::text(json!({"type": "ack", "output": 50_000}).to_string())).await.unwrap();
    first.signal(Signal::KILL);
    first.wait();
    drop(socket);

    let mut socket = attach(&second, &format!("{path}?received={}", had.len())).await;
    // What it had before counts until it is acknowledged: a client that had all of the window would hear nothing more.
    let acknowledged = |had: &[u8]| Message::text(json!({"type": "ack", "output": had.len()}).to_string());
    socket.send(acknowledged(&had)).await.unwrap();
    let (mut told, mut code) = (None, None);
    while let Some(message) = next(&mut socket).await {
        match message {
            Message::Binary(frame) => {
                had.extend_from_slice(&frame[1..]);
                socket.send(acknowledged(&had)).await.unwrap();
            }
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if told.is_none() && frame["type"] == "ack" {
                    told = frame["stdin"].as_u64();
                    socket.send(Message::binary(b"rd\n".to_vec())).await.unwrap();
                }
                code = frame["exit_code"].as_i64().or(code);
            }
            _ => {}
        }
    }
    assert_eq!((told, code), (Some(2), Some(9)));
    assert!(String::from_utf8(had).unwrap() == numbers(100_000) + "word\n");
    assert_eq!(second.get(&path).await["exit_code"], 9);

    // Signals, the size of a terminal and the end by force reach it from any server.
    let third = Server::start(&home, &[]);
    let tty = json!({"command": "sh", "args": ["-c", "read x; stty size; sleep 1000"], "tty": true});
    let created = second.post("/v1/boxes/box/exec", tty).await;
    let path = format!("/v1/boxes/box/executions/{}", created["execution_id"].as_str().unwrap());
    let size = json!({"cols": 101, "rows": 33});
    assert_eq!(third.ask(Method::POST, &format!("{path}/resize"), Some(size)).await.0.as_u16(), 204);
    let mut socket = attach(&second, &path).await;
    socket.send(Message::binary(b"\n".to_vec())).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("33 101") {
        // Without the byte that names the stream: the two numbers may come in two messages.
        seen += &String::from_utf8_lossy(
            next(&mut socket).await.unwrap().into_data().get(1..).unwrap_or_default(),
        );
    }
    assert_eq!(third.ask(Method::DELETE, &path, None).await.0.as_u16(), 204);
    assert_eq!(collect(socket).await.2, Some(137));
    assert_eq!(second.ask(Method::GET, &path, None).await.0.as_u16(), 404);
}

/// A command that prints for ever while nobody listens.
#[tokio::test]
async fn output_that_nobody_reads_takes_a_bounded_part_of_the_shims_memory() {
    let Some(home) = Home::able() else { return };
    let server = served(&home).await;
    let shim = shim_of(&home);
    let before = resident(shim);
    for _ in 0..4 {
        server.exec("box", "yes output; exit 1").await;
    }
    // Blocked as on a pipe: the guest has no credit left.
    let busy = ["exec", "box", "sh", "-c", "cat /proc/[0-9]*/stat | grep -c '(yes) R'"];
    deadline::within_async(TEST_TIMEOUT, "the commands to block", async || {
        (home.run(&busy).text().trim() == "0").then_some(())
    })
    .await;
    let grown = resident(shim).saturating_sub(before);
    assert!(grown < 8 * 1024, "the shim has grown by {grown} KiB");
}

/// Descriptors and memory of a server that runs `count` commands one after the other, each with a client.
async fn short_commands(count: usize) {
    let Some(home) = Home::able() else { return };
    let server = served(&home).await;
    let shim = shim_of(&home);
    let run = async |n: usize| {
        let path = server.exec("box", &format!("echo {n}; exit {}", n % 7)).await;
        let had = collect(attach(&server, &path).await).await;
        assert_eq!(had, (format!("{n}\n"), String::new(), Some((n % 7) as i64)));
    };
    for n in 0..20 {
        run(n).await;
    }
    let figures = || (server.descriptors(), server.resident(), resident(shim));
    let before = figures();
    for n in 0..count {
        run(n).await;
        if n % 1000 == 999 {
            println!("{n}: descriptors, KiB of the server, KiB of the shim: {:?}", figures());
        }
    }
    let after = figures();
    println!("{count} commands: {before:?} -> {after:?}");
    assert!(after.0 <= before.0 + 8, "{before:?} -> {after:?}");
    assert!(after.1 <= before.1 + 32 * 1024 && after.2 <= before.2 + 16 * 1024, "{before:?} -> {after:?}");
}

/// Before, each ended command held a socket for five minutes: 2,500 of them 2,506 descriptors.
#[tokio::test]
async fn an_ended_command_holds_no_descriptor() {
    short_commands(60).await;
}

#[tokio::test]
#[ignore = "ten thousand commands take a quarter of an hour; run by name, with --nocapture for the figures"]
async fn ten_thousand_commands_hold_no_descriptor() {
    short_commands(10_000).await;
}

/// The process id of the only box's shim.
fn shim_of(home: &Home) -> u32 {
    let id = home.run(&["ls", "-aq", "--no-trunc"]).ok();
    let (_, shim) = Home::processes(id.trim()).expect("a box that runs");
    shim.as_raw_nonzero().get() as u32
}

//! `port-forward`: ports inside a box, without a network and without publishing them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::thread;

use boxlite_testkit::deadline::{self, TEST_TIMEOUT};
use boxlite_testkit::program::noise;

use crate::home::Home;

/// A running `boxlite port-forward`; killed when dropped.
struct Forward {
    child: Child,
    /// Where it listens, in the order of its ports.
    addresses: Vec<SocketAddr>,
}

impl Forward {
    fn start(home: &Home, id: &str, ports: &[&str]) -> Self {
        let mut command = home.command(["port-forward", id].iter().chain(ports));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starting boxlite");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut addresses = Vec::new();
        for _ in ports {
            let line = lines.next().expect("where it listens").expect("a line");
            let (address, _) = line.split_once(" -> ").expect("an arrow");
            addresses.push(address.parse().expect("an address"));
        }
        Self { child, addresses }
    }

    fn connect(&self, port: usize) -> TcpStream {
        let stream = TcpStream::connect(self.addresses[port]).expect("connecting");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("a time-out");
        stream
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that the service answers to `question`, whose end it is told.
fn answer(mut stream: TcpStream, question: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(question).expect("asking");
            writer.shutdown(Shutdown::Write).expect("ending the question");
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the answer");
        answer
    })
}

#[test]
fn ports_of_a_box_without_a_network_are_reached() {
    let Some(home) = Home::able() else { return };
    let script = "busybox nc -ll -p 7000 -e cat & busybox nc -ll -p 7001 -e echo hello & sleep infinity";
    home.run(&[
        "run",
        "-d",
        "--name",
        "hidden",
        "--network",
        "none",
        &home.image("mini"),
        "sh",
        "-c",
        script,
    ])
    .ok();
    let forward = Forward::start(&home, "hidden", &["0:7000", "0:7001", "0:7002"]);
    deadline::until(TEST_TIMEOUT, "the services to listen", || answer(forward.connect(1), b"") == b"hello\n");

    let question = noise(3 << 20);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(answer(forward.connect(0), &question) == question, "the echo differs"));
        }
    });

    let output = home.run_with(&["port-forward", "--stdio", "hidden", "7000"], question.clone());
    assert!(output.out == question, "the echo over standard streams differs: {}", output.err);
    home.run(&["port-forward", "--stdio", "hidden", "7002"])
        .refused("nothing in the box listens on port 7002");

    // Nothing listens there: the client sees the end, and the user the reason.
    assert_eq!(answer(forward.connect(2), b""), b"");

    // A connection of a client that goes away without a word does not stay in the guest.
    let connections = || {
        let counted = home.run(&["exec", "hidden", "sh", "-c", "grep -c ' 01 ' /proc/net/tcp"]).text();
        counted.trim().parse::<u32>().expect("a number")
    };
    let mut kept = forward.connect(0);
    kept.write_all(b"x").unwrap();
    kept.read_exact(&mut [0]).unwrap();
    assert!(connections() > 0);
    drop(forward);
    deadline::until(TEST_TIMEOUT, "the connection to end in the guest", || connections() == 0);
    home.run(&["stop", "-t", "0", "hidden"]).ok();
    home.run(&["port-forward", "hidden", "0:7000"]).refused("does not run");
}

#[test]
fn what_cannot_be_forwarded_is_refused_at_once() {
    let Some(home) = Home::able() else { return };
    home.sleeper("there");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    home.run(&["port-forward", "there", &format!("{port}:80")]).refused("listening on 127.0.0.1");
    home.run(&["port-forward", "nowhere", "80"]).refused("nowhere");
    for wrong in ["80:0", "web", "1:2:3"] {
        assert_eq!(home.run(&["port-forward", "there", wrong]).code(), Some(125), "{wrong}");
    }
    let forward = Forward::start(&home, "there", &["0:80"]);
    home.run(&["rm", "-f", "there"]).ok();
    let mut forward = forward;
    let ended =
        deadline::eventually("port-forward to end with its box", || forward.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(125));
}

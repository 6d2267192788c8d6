//! `--allow-host`: named TCP ports of the host's loopback, and nothing else of it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;

use crate::home::Home;

/// A server on the host's loopback that greets whoever connects; it lives as long as the test's process.
fn greeter(word: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(word.as_bytes()));
        }
    });
    port
}

#[test]
fn a_box_reaches_the_ports_of_the_host_that_are_named_and_no_other() {
    let Some(home) = Home::able() else { return };
    let (open, secret) = (greeter("welcome\n"), greeter("secret\n"));
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, open)).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let port = open.to_string();
    let image = home.image("mini");
    let options = [
        "--add-host",
        "host.docker.internal:host-gateway",
        "--allow-host",
        &port,
        "--allow-net",
        "a.example",
    ];
    home.run(&[&["run", "-d", "--name", "guest"], &options[..], &[&image, "sleep", "infinity"]].concat())
        .ok();
    let hosts = home.run(&["exec", "guest", "cat", "/etc/hosts"]).ok();
    assert!(hosts.contains("10.0.2.2\thost.docker.internal\n"), "{hosts}");
    // Whoever is answered waits for no limit, however slow the machine is.
    let ask = |port: u16, seconds: u32| {
        let script = format!("busybox nc -w {seconds} 10.0.2.2 {port} </dev/null 2>/dev/null");
        home.run(&["exec", "guest", "sh", "-c", &script]).text()
    };
    assert_eq!(ask(open, 60), "welcome\n");
    assert_eq!(ask(open, 60), "welcome\n");
    // All at once: what is dropped is waited for.
    let others = [
        ("10.0.2.2", secret),
        ("127.0.0.1", secret),
        ("10.0.2.3", open),
        ("10.0.2.4", open),
        ("0.0.0.0", open),
    ];
    let tries =
        others.map(|(address, port)| format!("busybox nc -w 5 {address} {port} </dev/null 2>/dev/null & "));
    let heard = home.run(&["exec", "guest", "sh", "-c", &format!("{} wait", tries.concat())]).ok();
    assert_eq!(heard, "");
    let send = format!("echo datagram | busybox nc -u -w 1 10.0.2.2 {open}");
    home.run(&["exec", "guest", "sh", "-c", &send]);
    assert!(datagrams.recv(&mut [0; 16]).is_err(), "only TCP");
    let shown = home.run(&["inspect", "guest"]).json()[0].clone();
    assert_eq!(shown["options"]["allow_host"], serde_json::json!([open]));
    assert_eq!(shown["network_usage"]["host_connections"], 2, "{}", shown["network_usage"]);

    home.run(&["stop", "-t", "0", "guest"]).ok();
    home.run(&["update", "--allow-host", "none", "guest"]).ok();
    home.run(&["start", "guest"]).ok();
    assert_eq!(ask(open, 3), "");
    let shown = home.run(&["inspect", "guest"]).json()[0].clone();
    assert_eq!(shown["network_usage"]["host_connections"], serde_json::Value::Null);

    let line = ["create", "--add-host", "h:host-gateway", &image];
    let noted = home.run(&line);
    assert!(noted.err.contains("h leads to the host, of which the box reaches no port"), "{}", noted.err);
}

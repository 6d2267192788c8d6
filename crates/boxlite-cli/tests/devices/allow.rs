//! A box with a list of allowed destinations, against real servers of TLS and HTTP that share an address.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;

use boxlite_testkit::program::run;
use boxlite_types::RefusalKind;

use crate::dns::{serve_udp, up_with_resolv_conf};
use crate::guest::ground;
use crate::outside::Outside;

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 78);

/// What of the outside machine is allowed: two names of it for the web, one for another protocol, and a port of its address.
fn rules(outside: &Outside) -> Vec<String> {
    let block = format!("{}/32:9000", outside.address);
    [
        "www.allowed.test:443",
        "www.allowed.test:80",
        "*.wild.test",
        "shell.allowed.test:2222",
        "rebound.test",
        &block,
    ]
    .map(str::to_owned)
    .into()
}

/// A server on the outside machine; it is killed when this is dropped.
struct Server(Child);

impl Server {
    /// Starts the servers of `servers.py`, with a certificate of OpenSSL's making.
    fn start(outside: &Outside) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("key.pem"), directory.path().join("cert.pem"));
        let mut make = Command::new("openssl");
        make.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=any".split(' '),
        );
        run(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
        let mut serve = outside.command("python3");
        serve.args(["-c", include_str!("servers.py"), &outside.address.to_string()]).args([certificate, key]);
        let mut server = Self(serve.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// Mutation tried: `judge` carries every TCP segment.
#[tokio::test]
async fn a_box_with_a_list_reaches_what_is_on_it_and_nothing_else() {
    let Some(ground) = ground() else { return };
    let (outside, private) = (Outside::public(), Outside::new());
    let (_server, _private_server) = (Server::start(&outside), Server::start(&private));
    let (address, private_address) = (outside.address, private.address);
    let resolver = UdpSocket::bind(SocketAddrV4::new(RESOLVER, 53)).unwrap();
    thread::spawn(move || {
        serve_udp(&resolver, move |name| match name {
            "rebound.test" => Some(private_address),
            _ => Some(address),
        });
    });

    let mut guest = ground.new_box(Some(&[]), &[]);
    let rules = rules(&outside).iter().map(|rule| rule.parse().unwrap()).collect();
    guest.spec.network.as_mut().unwrap().allowed = Some(rules);
    let conf = guest.paths.root().join("resolv.conf");
    std::fs::write(&conf, format!("nameserver {RESOLVER}\n")).unwrap();
    let guest = up_with_resolv_conf(guest, conf).await;
    let arguments = [address.to_string(), private_address.to_string()];
    let said = guest.python(include_str!("allow.py"), &[&arguments[0], &arguments[1]]).await;
    assert_eq!(said, include_str!("allow.expected"), "{}", guest.shim_log());

    let usage = guest.client().status().await.unwrap().unwrap().network.unwrap();
    let refusals = usage.refusals.unwrap();
    for kind in RefusalKind::ALL {
        assert!(refusals.counts.get(&kind).is_some_and(|count| *count > 0), "{kind:?}: {refusals:?}");
    }
    assert_eq!(refusals.total, refusals.counts.values().sum::<u64>());
    let shown = |kind, destination: &str| {
        refusals.latest.iter().any(|refused| refused.kind == kind && refused.destination == destination)
    };
    assert!(shown(RefusalKind::Server, &format!("evil.test at {address}:443")), "{refusals:?}");
    assert!(shown(RefusalKind::Name, "evil.test"), "{refusals:?}");
    guest.stop().await;
}

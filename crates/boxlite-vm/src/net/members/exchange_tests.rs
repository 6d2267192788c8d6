use std::path::Path;
use std::time::Duration;

use boxlite_types::Subnet;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::super::oracle::{ipv4, name_query, udp};
use super::super::join;
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A box without a guest: its exchange runs, and its steward's part.
struct Node {
    exchange: Arc<Exchange>,
    running: JoinHandle<io::Result<()>>,
    for_guest: mpsc::Receiver<Vec<u8>>,
    steward: std::thread::JoinHandle<()>,
}

fn network(directory: &Path, name: &str, last: u8, internal: bool) -> MemberNetwork {
    let own = Member {
        id: format!("{name}{}", "0".repeat(32 - name.len())),
        name: name.into(),
        aliases: vec!["any".into()],
        address: [10, 89, 0, last].into(),
    };
    let subnet = Subnet::new([10, 89, 0, 0].into(), 24);
    MemberNetwork { name: "back".into(), directory: directory.to_owned(), subnet, internal, own }
}

fn start(directory: &Path, name: &str, last: u8) -> Node {
    let network = network(directory, name, last, false);
    let (exchange, mailbox) = join(&network, MacAddr::of_box(&network.own.id)).unwrap();
    let steward = std::thread::spawn(move || mailbox.serve());
    let exchange = Arc::new(exchange);
    let (to_guest, for_guest) = mpsc::channel(4);
    let running = tokio::spawn(Arc::clone(&exchange).run(to_guest));
    Node { exchange, running, for_guest, steward }
}

impl Node {
    async fn connected(&self, wanted: u64) {
        let met = async {
            while self.exchange.usage().connected != wanted {
                tokio::task::yield_now().await;
            }
        };
        let met = timeout(LIMIT, met).await;
        assert!(met.is_ok(), "{:?} instead of {wanted}", self.exchange.usage());
    }

    async fn received(&mut self) -> Vec<u8> {
        timeout(LIMIT, self.for_guest.recv()).await.expect("a packet arrives").unwrap()
    }

    /// Sends bytes to the only peer as a shim does that does not look at what its guest sends.
    fn send_unchecked(&self, bytes: &[u8]) {
        let peers = self.exchange.peers();
        rustix::net::send(&*peers[0].channels[0].socket, bytes, SendFlags::DONTWAIT).unwrap();
    }

    /// Its shim is killed.
    async fn end(self) {
        self.running.abort();
        let _ = self.running.await;
        tokio::task::spawn_blocking(|| self.steward.join()).await.unwrap().unwrap();
    }
}

fn packet(from: u8, to: u8, data: &[u8]) -> Vec<u8> {
    ipv4([10, 89, 0, from], [10, 89, 0, to], 17, data)
}

#[tokio::test]
async fn boxes_meet_and_take_in_only_what_is_their_sender_s() {
    let directory = tempfile::tempdir().unwrap();
    let (one, mut two) = (start(directory.path(), "one", 2), start(directory.path(), "two", 3));
    one.connected(1).await;
    two.connected(1).await;

    let sent = packet(2, 3, b"12345678 hello");
    assert_eq!(one.exchange.take(&sent), Taken::Sent);
    let frame = two.received().await;
    assert_eq!(frame[14..], sent[14..]);
    let macs = [two.exchange.mac.octets(), one.exchange.mac.octets()].concat();
    assert_eq!(frame[..12], macs, "whatever Ethernet addresses the sender's guest wrote");

    // A guest speaks for itself alone, and to boxes that there are.
    assert_eq!(one.exchange.take(&packet(9, 3, b"12345678")), Taken::Dropped);
    assert_eq!(one.exchange.usage().refused, 1);
    assert_eq!(one.exchange.take(&packet(2, 9, b"12345678")), Taken::Dropped);
    assert_eq!(one.exchange.take(&packet(2, 2, b"12345678")), Taken::Dropped);
    // A shim that a guest has taken over says what it likes, and the receiver looks for itself.
    for forged in [&packet(9, 3, b"x")[14..], &packet(2, 9, b"x")[14..], b"x", &[0x45; 9000]] {
        one.send_unchecked(forged);
    }
    assert_eq!(one.exchange.take(&sent), Taken::Sent);
    assert_eq!(two.received().await[14..], sent[14..]);
    assert_eq!(
        two.exchange.usage(),
        PeerUsage { connected: 1, received: 2, refused: 4, ..PeerUsage::default() }
    );

    // A third finds both; one that has ended is gone for the others, and comes back.
    let three = start(directory.path(), "three", 4);
    three.connected(2).await;
    two.connected(2).await;
    one.end().await;
    two.connected(1).await;
    three.connected(1).await;
    let one = start(directory.path(), "one", 2);
    one.connected(2).await;
    two.connected(2).await;
    assert_eq!(one.exchange.take(&sent), Taken::Sent);
    assert_eq!(two.received().await[14..], sent[14..]);

    // Another network is another directory.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = start(elsewhere.path(), "other", 5);
    other.connected(0).await;
    assert_eq!(other.exchange.take(&packet(5, 3, b"12345678")), Taken::Dropped);
    two.connected(2).await;
}

#[tokio::test]
async fn a_box_that_takes_nothing_in_costs_others_packets_and_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let stuck = network(directory.path(), "stuck", 3, false);
    let (_stuck, _mailbox) = join(&stuck, MacAddr::of_box("stuck")).unwrap();
    let (one, mut two) = (start(directory.path(), "one", 2), start(directory.path(), "two", 4));
    one.connected(2).await;
    let sent = packet(2, 3, &[7; 1400]);
    let results: Vec<Taken> = (0..20_000).map(|_| one.exchange.take(&sent)).collect();
    let usage = one.exchange.usage();
    let carried = results.iter().filter(|taken| **taken == Taken::Sent).count();
    assert!(carried > 10 && carried < 5_000, "{carried} wait in the kernel");
    assert_eq!((usage.sent, usage.sent + usage.lost), (carried as u64, 20_000));
    assert_eq!(one.exchange.take(&packet(2, 4, b"12345678")), Taken::Sent, "others are reached all the same");
    two.received().await;
}

#[tokio::test]
async fn a_box_hears_of_others_from_its_user_alone_and_not_of_nonsense() {
    let directory = tempfile::tempdir().unwrap();
    let one = start(directory.path(), "one", 2);
    let wrong = [
        Member { id: one.exchange.network.own.id.clone(), ..network(directory.path(), "me", 5, false).own },
        network(directory.path(), "same", 2, false).own,
        Member { address: [10, 90, 0, 7].into(), ..network(directory.path(), "far", 7, false).own },
    ];
    let mut listeners = JoinSet::new();
    let (to_guest, _for_guest) = mpsc::channel(1);
    for member in wrong {
        let (channel, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        channel.set_nonblocking(true).unwrap();
        let acquaintance = Acquaintance { member, channel: channel.into() };
        one.exchange.meet(acquaintance, &mut listeners, &to_guest);
    }
    one.connected(0).await;
}

#[tokio::test]
async fn names_and_ethernet_addresses_are_answered_by_the_box_s_own_shim() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (start(directory.path(), "one", 2), start(directory.path(), "two", 3));
    one.connected(1).await;
    let ask = |exchange: &Exchange, server: [u8; 4], name: &str| {
        exchange.take(&udp(server, 4000, 53, &name_query(name)))
    };
    let answered = |taken: Taken| match taken {
        Taken::Answered(frame) => {
            let message = frame[42..].to_vec();
            let question = crate::net::dns::question_of_answer(&message).unwrap();
            let mut addresses: Vec<u8> = crate::net::dns::addresses(&message, &question)
                .iter()
                .map(|record| record.address.octets()[3])
                .collect();
            addresses.sort_unstable();
            addresses
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "two")), [3]);
    assert_eq!(answered(ask(&one.exchange, [1, 1, 1, 1], "TWO.back")), [3], "whatever server --dns names");
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "one")), [2]);
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "any")), [2, 3]);
    assert_eq!(ask(&one.exchange, [10, 0, 2, 3], "example.org"), Taken::Elsewhere);
    two.end().await;
    one.connected(0).await;
    assert_eq!(ask(&one.exchange, [10, 0, 2, 3], "two"), Taken::Elsewhere, "it does not run");

    let inner = network(directory.path(), "inner", 9, true);
    let (inner, _mailbox) = join(&inner, MacAddr::of_box("inner")).unwrap();
    assert!(answered(ask(&inner, [10, 0, 2, 3], "example.org")).is_empty());
    for outside in [udp([192, 168, 7, 9], 1, 1, b"12345678"), vec![0; 20]] {
        assert_eq!(inner.take(&outside), Taken::Dropped, "an internal network leads nowhere else");
    }
}

use std::path::Path;
use std::time::Duration;

use boxlite_types::Subnet;
use rustix::net::SendFlags;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::super::super::oracle::{ipv4, name_query, udp};
use super::super::{Member, join};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A box without a guest: its exchange runs, and its steward's part.
struct Node {
    exchange: Arc<Exchange>,
    running: JoinHandle<io::Result<()>>,
    for_guest: mpsc::Receiver<Vec<u8>>,
    stewards: Vec<std::thread::JoinHandle<()>>,
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
    start_in(&[network(directory, name, last, false)])
}

fn start_in(networks: &[MemberNetwork]) -> Node {
    let has_stack = networks.iter().any(|network| !network.internal);
    let (exchange, mailboxes) = join(networks, MacAddr::of_box(&networks[0].own.id), has_stack).unwrap();
    let stewards = mailboxes.into_iter().map(|mailbox| std::thread::spawn(move || mailbox.serve())).collect();
    let exchange = Arc::new(exchange);
    let (to_guest, for_guest) = mpsc::channel(4);
    let running = tokio::spawn(Arc::clone(&exchange).run(to_guest));
    Node { exchange, running, for_guest, stewards }
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
        let peers = self.exchange.networks[0].running();
        rustix::net::send(&*peers[0].channels[0].socket, bytes, SendFlags::DONTWAIT).unwrap();
    }

    /// Its shim is killed.
    async fn end(self) {
        self.running.abort();
        let _ = self.running.await;
        for steward in self.stewards {
            tokio::task::spawn_blocking(|| steward.join()).await.unwrap().unwrap();
        }
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
    let (_stuck, _mailbox) = join(&[stuck], MacAddr::of_box("stuck"), true).unwrap();
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
        Member {
            id: one.exchange.networks[0].network.own.id.clone(),
            ..network(directory.path(), "me", 5, false).own
        },
        network(directory.path(), "same", 2, false).own,
        Member { address: [10, 90, 0, 7].into(), ..network(directory.path(), "far", 7, false).own },
    ];
    let mut listeners = JoinSet::new();
    let (to_guest, _for_guest) = mpsc::channel(1);
    for member in wrong {
        let (channel, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        channel.set_nonblocking(true).unwrap();
        let acquaintance = Acquaintance { member, channel: channel.into() };
        one.exchange.networks[0].meet(acquaintance, &mut listeners, &to_guest);
    }
    one.connected(0).await;

    // Only the home's user may write to a mailbox, and a description counts under its own id alone. Mutations tried: any mode of the
    // mailbox; a description of another.
    let id = one.exchange.networks[0].network.own.id.clone();
    let mode = |path: std::path::PathBuf| {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions())
    };
    assert_eq!(mode(directory.path().join(format!("{id}.sock"))) & 0o777, 0o600);
    for end in ["json", "sock"] {
        let [from, to] = [&*id, "borrowed"].map(|stem| directory.path().join(format!("{stem}.{end}")));
        std::fs::hard_link(from, to).unwrap();
    }
    let two = start(directory.path(), "two", 3);
    two.connected(1).await;
    assert_eq!(two.exchange.networks[0].running()[0].channels.len(), 1, "met once");
    for end in ["json", "sock"] {
        std::fs::remove_file(directory.path().join(format!("borrowed.{end}"))).unwrap();
    }
}

/// Mutations tried: what has been replaced is listened to all the same; channels of one box without a bound.
#[tokio::test]
async fn a_box_that_comes_again_and_again_takes_up_two_channels() {
    let directory = tempfile::tempdir().unwrap();
    let one = start(directory.path(), "one", 2);
    let peers = &one.exchange.networks[0];
    let mut listeners = JoinSet::new();
    let (to_guest, _for_guest) = mpsc::channel(1);
    let mut meet = || {
        let (channel, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        channel.set_nonblocking(true).unwrap();
        let member = network(directory.path(), "two", 7, false).own;
        peers.meet(Acquaintance { member, channel: channel.into() }, &mut listeners, &to_guest);
        theirs
    };
    let ends = [meet(), meet(), meet()];
    assert_eq!(peers.running()[0].channels.len(), 2);
    let closed = async {
        while ends[0].send(b"x").is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, closed).await.expect("the channel that was replaced is closed");
    assert!(ends[1].send(b"x").is_ok() && ends[2].send(b"x").is_ok());
}

/// Mutations tried: one internal network takes the stack away; none does.
#[test]
fn a_box_has_a_stack_unless_all_of_its_networks_are_internal() {
    let has = |internal: &[bool]| {
        let member_of = internal.iter().map(|internal| network(Path::new("/none"), "one", 2, *internal));
        crate::net::Network { member_of: member_of.collect(), ..Default::default() }.has_stack()
    };
    assert!(has(&[]) && has(&[false]) && has(&[true, false]) && has(&[false, true]));
    assert!(!has(&[true]) && !has(&[true, true]));
}

fn ask(exchange: &Exchange, server: [u8; 4], name: &str) -> Taken {
    exchange.take(&udp(server, 4000, 53, &name_query(name)))
}

/// The last octets of the addresses in an answer.
fn answered(taken: Taken) -> Vec<u8> {
    let Taken::Answered(frame) = taken else { panic!("{taken:?}") };
    let message = frame[42..].to_vec();
    let question = crate::net::dns::question_of_answer(&message).unwrap();
    let records = crate::net::dns::addresses(&message, &question);
    let mut addresses: Vec<u8> = records.iter().map(|record| record.address.octets()[3]).collect();
    addresses.sort_unstable();
    addresses
}

#[tokio::test]
async fn names_and_ethernet_addresses_are_answered_by_the_box_s_own_shim() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (start(directory.path(), "one", 2), start(directory.path(), "two", 3));
    one.connected(1).await;
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "two")), [3]);
    assert_eq!(answered(ask(&one.exchange, [1, 1, 1, 1], "TWO.back")), [3], "whatever server --dns names");
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "one")), [2]);
    assert_eq!(answered(ask(&one.exchange, [10, 0, 2, 3], "any")), [2, 3]);
    assert_eq!(ask(&one.exchange, [10, 0, 2, 3], "example.org"), Taken::Elsewhere);
    two.end().await;
    one.connected(0).await;
    assert_eq!(ask(&one.exchange, [10, 0, 2, 3], "two"), Taken::Elsewhere, "it does not run");

    let inner = network(directory.path(), "inner", 9, true);
    let (inner, _mailbox) = join(&[inner], MacAddr::of_box("inner"), false).unwrap();
    assert!(answered(ask(&inner, [10, 0, 2, 3], "example.org")).is_empty());
    for outside in [udp([192, 168, 7, 9], 1, 1, b"12345678"), vec![0; 20]] {
        assert_eq!(inner.take(&outside), Taken::Dropped, "an internal network leads nowhere else");
    }
}

/// A box's ARP request with `sender` for `target`.
fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

#[tokio::test]
async fn a_box_of_two_networks_reaches_both_and_is_no_way_between_them() {
    let [back, front] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let in_front = |name: &str, last: u8| MemberNetwork {
        name: "front".into(),
        subnet: Subnet::new([10, 90, 0, 0].into(), 24),
        internal: true,
        own: Member { address: [10, 90, 0, last].into(), ..network(front.path(), name, last, true).own },
        ..network(front.path(), name, last, true)
    };
    let both = [network(back.path(), "both", 2, false), in_front("both", 22)];
    let (mut db, mut web) = (start(back.path(), "db", 3), start_in(&[in_front("web", 33)]));
    let mut both = start_in(&both);
    both.connected(2).await;
    db.connected(1).await;
    web.connected(1).await;

    // It reaches the members of each from its own address there, and is reached.
    let (to_db, to_web) = (packet(2, 3, b"to db"), ipv4([10, 90, 0, 22], [10, 90, 0, 33], 17, b"to web"));
    assert_eq!((both.exchange.take(&to_db), both.exchange.take(&to_web)), (Taken::Sent, Taken::Sent));
    assert_eq!((&db.received().await[14..], &web.received().await[14..]), (&to_db[14..], &to_web[14..]));
    let back_again = ipv4([10, 90, 0, 33], [10, 90, 0, 22], 17, b"to both");
    assert_eq!(web.exchange.take(&back_again), Taken::Sent);
    assert_eq!(both.received().await[14..], back_again[14..]);

    // A packet that it forwards, or sends from its address in the other network, is not carried.
    for through in [
        ipv4([10, 90, 0, 33], [10, 89, 0, 3], 17, b"forwarded"),
        ipv4([10, 90, 0, 22], [10, 89, 0, 3], 17, b"of the other address"),
        ipv4([10, 0, 2, 15], [10, 89, 0, 3], 17, b"of no network"),
    ] {
        assert_eq!(both.exchange.take(&through), Taken::Dropped);
    }
    assert_eq!(both.exchange.usage().refused, 3);
    // Members of one do not reach members of the other, nor the box's address there.
    assert_eq!(db.exchange.take(&ipv4([10, 89, 0, 3], [10, 90, 0, 33], 17, b"x")), Taken::Elsewhere);
    assert_eq!(web.exchange.take(&ipv4([10, 90, 0, 33], [10, 89, 0, 2], 17, b"x")), Taken::Dropped);
    web.send_unchecked(&ipv4([10, 90, 0, 33], [10, 89, 0, 2], 17, b"to its other address")[14..]);
    web.exchange.take(&back_again);
    assert_eq!(both.received().await[14..], back_again[14..]);
    assert_eq!(both.exchange.usage().refused, 4);

    // Names are those of both networks, each answered with the addresses there; those of others are not known.
    let resolver = [10, 0, 2, 3];
    assert_eq!(answered(ask(&both.exchange, resolver, "db")), [3]);
    assert_eq!(answered(ask(&both.exchange, resolver, "web.front")), [33]);
    assert_eq!(ask(&both.exchange, resolver, "web.back"), Taken::Elsewhere);
    assert_eq!(answered(ask(&both.exchange, resolver, "any")), [2, 3, 22, 33]);
    assert_eq!(answered(ask(&web.exchange, resolver, "both")), [22]);
    assert_eq!(ask(&db.exchange, resolver, "web"), Taken::Elsewhere);
    assert!(answered(ask(&web.exchange, resolver, "db")).is_empty());

    // It has a stack, which answers for the resolver and all that is outside, although one of its networks has none.
    assert_eq!(both.exchange.take(&arp_request([10, 0, 2, 15], resolver)), Taken::Elsewhere);
    assert_eq!(both.exchange.take(&arp_request([10, 90, 0, 22], resolver)), Taken::Elsewhere);
    assert_eq!(both.exchange.take(&udp([192, 168, 7, 9], 1, 1, b"12345678")), Taken::Elsewhere);
    for (asker, known) in [([10, 90, 0, 22], [10, 90, 0, 33]), ([10, 89, 0, 2], [10, 89, 0, 3])] {
        assert!(matches!(both.exchange.take(&arp_request(asker, known)), Taken::Answered(_)));
    }
    assert_eq!(both.exchange.take(&arp_request([10, 89, 0, 2], [10, 90, 0, 33])), Taken::Dropped);
    // A box that shares both networks is one box. Mutation tried: it counts in each.
    let twin = start_in(&[network(back.path(), "twin", 4, false), in_front("twin", 44)]);
    both.connected(3).await;
    twin.connected(3).await;
    twin.end().await;
    both.end().await;
    db.connected(0).await;
    web.connected(0).await;
}

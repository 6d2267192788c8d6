use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn tcp(guest_port: u16) -> Connection {
    Connection::Tcp { guest_port, peer: Ipv4Addr::new(1, 1, 1, 1), peer_port: 443 }
}

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Notes steps of `connection` at `now`, all of which are carried.
fn carried(
    table: &mut OpenConnections,
    connection: Connection,
    steps: &[(ConnectionStep, Sender)],
    now: Instant,
) {
    for &(step, sender) in steps {
        assert!(table.note(connection, step, sender, now), "{step:?} of {sender:?}");
    }
}

const OPENED: [(ConnectionStep, Sender); 3] = [
    (ConnectionStep::Open, Sender::Guest),
    (ConnectionStep::Accept, Sender::Stack),
    (ConnectionStep::Continue, Sender::Guest),
];

// Mutation tried: comparing with `<=` lets one too many in, and fails here.
#[test]
fn one_too_many_is_refused_until_another_ends() {
    let (mut table, now) = (OpenConnections::new(2), Instant::now());
    carried(&mut table, tcp(1), &OPENED, now);
    carried(&mut table, tcp(2), &OPENED, now);
    assert!(!table.note(tcp(3), ConnectionStep::Open, Sender::Guest, now));
    assert!(!table.note(Connection::Udp { guest_port: 3 }, ConnectionStep::Open, Sender::Guest, now));
    assert!(
        table.note(tcp(2), ConnectionStep::Open, Sender::Guest, now),
        "a repeated request is not another connection"
    );
    assert!(
        table.note(tcp(3), ConnectionStep::Continue, Sender::Guest, now),
        "slirp resets what it does not know"
    );
    carried(&mut table, tcp(1), &[(ConnectionStep::End, Sender::Stack)], now);
    assert!(table.note(tcp(3), ConnectionStep::Open, Sender::Guest, now));
    assert_eq!(table.count(now), 2);
}

#[test]
fn the_side_that_asks_last_is_the_opener() {
    let (mut table, now) = (OpenConnections::new(8), Instant::now());
    assert_eq!(table.opened_by(tcp(1)), None);
    carried(&mut table, tcp(1), &[(ConnectionStep::Open, Sender::Stack)], now);
    assert_eq!(table.opened_by(tcp(1)), Some(Sender::Stack));
    carried(&mut table, tcp(1), &OPENED, now);
    assert_eq!(table.opened_by(tcp(1)), Some(Sender::Guest));
}

// Mutation tried: letting the guest's first FIN linger too exhausts the table of a box that opens many short
// connections, and fails here.
#[test]
fn the_side_that_finishes_first_remembers_the_connection() {
    let (mut table, now) = (OpenConnections::new(8), Instant::now());
    let [guest, stack] = [Sender::Guest, Sender::Stack].map(|sender| (ConnectionStep::Finish, sender));
    carried(&mut table, tcp(1), &OPENED, now);
    carried(&mut table, tcp(1), &[guest, guest, stack], now);
    assert_eq!(table.count(now), 0);
    carried(&mut table, tcp(2), &OPENED, now);
    carried(&mut table, tcp(2), &[stack, guest, (ConnectionStep::Continue, Sender::Stack)], now);
    assert_eq!(table.count(now + second(9)), 1);
    assert_eq!(table.count(now + second(11)), 0);
}

#[test]
fn what_slirp_gives_up_is_forgotten() {
    let (mut table, now) = (OpenConnections::new(8), Instant::now());
    let name = Connection::Udp { guest_port: 1 };
    carried(&mut table, tcp(1), &OPENED[..1], now);
    carried(&mut table, tcp(2), &OPENED, now);
    carried(
        &mut table,
        name,
        &[(ConnectionStep::Open, Sender::Guest), (ConnectionStep::AnswerName, Sender::Stack)],
        now,
    );
    carried(&mut table, Connection::Udp { guest_port: 2 }, &OPENED[..1], now);
    for (after, left) in [(9, 4), (11, 3), (149, 3), (151, 2), (241, 1), (3 * 3600, 0)] {
        assert_eq!(table.count(now + second(after)), left, "after {after} s");
    }
}

proptest! {
    // Mutation tried: inserting before asking for room fails here.
    #[test]
    fn no_sequence_of_frames_passes_the_bound_or_refuses_without_need(
        steps in proptest::collection::vec(
            (
                0u16..12,
                select(&[ConnectionStep::Open, ConnectionStep::Accept, ConnectionStep::Continue, ConnectionStep::Finish, ConnectionStep::End, ConnectionStep::AnswerName][..]),
                select(&[Sender::Guest, Sender::Stack][..]),
                0u64..400,
            ),
            0..200,
        )
    ) {
        let (mut table, mut now) = (OpenConnections::new(5), Instant::now());
        for (port, step, sender, pause) in steps {
            let connection = if port % 2 == 0 { tcp(port) } else { Connection::Udp { guest_port: port } };
            let admitted = table.note(connection, step, sender, now);
            prop_assert!(table.open.len() <= 5);
            prop_assert!(admitted || (step == ConnectionStep::Open && table.count(now) == 5));
            now += second(pause);
        }
    }
}

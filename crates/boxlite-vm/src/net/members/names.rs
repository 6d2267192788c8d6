//! The names of the boxes of a network, and the answers to questions for them.

use std::net::Ipv4Addr;

use super::super::answer;
use super::super::dns::{self, OwnAnswer, Question};
use super::super::frame::{DNS_PORT, ETHERNET_HEADER, TRANSPORT_AT, be16};
use super::Member;

/// How long a resolver may remember an address: a box keeps its own, but its name may pass to another box.
const REMEMBERED_SECONDS: u32 = 5;

/// Characters of a box's short id.
const SHORT_ID: usize = 12;

impl Member {
    /// Whether the box of the network `network` has that name, in lower case: its own, an alias, its id or the short form of
    /// that; each also with the network's name behind it, after a dot.
    pub(super) fn is_called(&self, name: &str, network: &str) -> bool {
        let is_own = |name: &str| {
            self.name.eq_ignore_ascii_case(name)
                || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
                || self.id == name
                || self.id.get(..SHORT_ID) == Some(name)
        };
        let before = name.len().checked_sub(network.len() + 1).map(|at| name.split_at_checked(at));
        is_own(name)
            || before.flatten().is_some_and(|(own, rest)| {
                rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(network)) && is_own(own)
            })
    }
}

/// The question for a name in a frame, and the message that it is of; `None` where there is no such.
pub(super) fn question(frame: &[u8]) -> Option<(Question, &[u8])> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let is_datagram = be16(frame, 12)? == 0x0800
        && *packet.first()? == 0x45
        && be16(packet, 6)? & !0x4000 == 0
        && *packet.get(9)? == 17
        && be16(frame, TRANSPORT_AT + 2)? == DNS_PORT;
    let length = usize::from(be16(frame, TRANSPORT_AT + 4)?).checked_sub(8)?;
    let message = is_datagram.then(|| frame.get(TRANSPORT_AT + 8..)?.get(..length)).flatten()?;
    Some((dns::question_of_query(message)?, message))
}

/// The frame that answers the question of `frame` with `addresses`; one for other records than IPv4 addresses has none.
pub(super) fn answer(
    frame: &[u8],
    (question, message): (&Question, &[u8]),
    addresses: &[Ipv4Addr],
) -> Option<Vec<u8>> {
    let answer = if question.is_of_addresses() {
        dns::address_answer(message, question, addresses, REMEMBERED_SECONDS)
    } else {
        dns::own_answer(message, question, OwnAnswer::Nothing)
    };
    answer::datagram_back(frame, &answer)
}

/// The frame that says that there is no such name.
pub(super) fn no_such_name(frame: &[u8], (question, message): (&Question, &[u8])) -> Option<Vec<u8>> {
    answer::datagram_back(frame, &dns::own_answer(message, question, OwnAnswer::NoSuchName))
}

#[cfg(test)]
mod tests {
    use super::super::super::oracle::{name_query, udp};
    use super::*;

    fn member() -> Member {
        Member {
            id: "0123456789abcdef0123456789abcdef".into(),
            name: "Web".into(),
            aliases: vec!["www.local".into()],
            address: [10, 89, 0, 2].into(),
        }
    }

    #[test]
    fn a_box_is_called_by_its_names_and_no_others() {
        for name in [
            "web",
            "www.local",
            "0123456789ab",
            "0123456789abcdef0123456789abcdef",
            "web.back",
            "www.local.back",
            "0123456789ab.back",
        ] {
            assert!(member().is_called(name, "Back"), "{name}");
        }
        for name in [
            "",
            "we",
            "webb",
            "back",
            ".back",
            "web.front",
            "web.bank",
            "web.back.back",
            "webback",
            "012345678",
            "local",
        ] {
            assert!(!member().is_called(name, "back"), "{name}");
        }
    }

    #[test]
    fn an_answer_has_the_question_s_number_and_the_addresses() {
        let frame = udp([10, 0, 2, 3], 4000, 53, &name_query("web"));
        let (asked, message) = question(&frame).unwrap();
        assert_eq!(asked.name, "web");
        let addresses = [Ipv4Addr::new(10, 89, 0, 2), Ipv4Addr::new(10, 89, 0, 9)];
        let answered = answer(&frame, (&asked, message), &addresses).unwrap();
        let said = &answered[TRANSPORT_AT + 8..];
        let again = dns::question_of_answer(said).unwrap();
        assert!(again.is_same(&asked) && said[..2] == message[..2]);
        let told: Vec<Ipv4Addr> = dns::addresses(said, &again).iter().map(|record| record.address).collect();
        assert_eq!(told, addresses);
        let denied = no_such_name(&frame, (&asked, message)).unwrap();
        assert_eq!(denied[TRANSPORT_AT + 8 + 3] & 15, 3);
        for other in
            [udp([10, 0, 2, 3], 4000, 54, &name_query("web")), udp([10, 0, 2, 3], 4000, 53, b"?"), Vec::new()]
        {
            assert!(question(&other).is_none());
        }
        let many = vec![Ipv4Addr::LOCALHOST; 100];
        assert!(answer(&frame, (&asked, message), &many).unwrap().len() < TRANSPORT_AT + 8 + 512);
    }
}

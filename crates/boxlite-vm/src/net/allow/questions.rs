//! The guest's questions to its resolver, and what their answers teach.

use std::time::Instant;

use boxlite_proto::RefusalKind;

use super::super::SUBNET;
use super::super::answer;
use super::super::dns::{self, OwnAnswer, Question};
use super::super::frame::{DNS_PORT, TRANSPORT_AT, be16};
use super::super::route::is_private;
use super::{AllowList, AllowVerdict, refuse};

const SUM_AT: usize = TRANSPORT_AT + 6;
pub(super) const UDP_DATA_AT: usize = TRANSPORT_AT + 8;

impl AllowList {
    /// Gives an answer the number of its question; `None` when it answers none.
    pub(super) fn learn_names(&mut self, frame: &mut [u8], now: Instant) -> Option<()> {
        let guest_port =
            be16(frame, TRANSPORT_AT + 2).filter(|_| be16(frame, TRANSPORT_AT) == Some(DNS_PORT))?;
        let message = frame.get(UDP_DATA_AT..)?;
        let question = dns::question_of_answer(message)?;
        let number = self.queries.answer(guest_port, be16(message, 0)?, &question, now)?;
        for record in dns::addresses(message, &question) {
            let is_outside = !is_private(record.address)
                && !SUBNET.contains(record.address)
                && !self.own.iter().any(|own| own.contains(record.address));
            if is_outside {
                self.pins.pin(&question.name, record.address, record.seconds, now);
            }
        }
        renumber(frame, number);
        Some(())
    }

    /// Decides about a datagram to the resolver; a question that is asked gets another number.
    pub(super) fn judge_question(&mut self, frame: &mut [u8], guest_port: u16, now: Instant) -> AllowVerdict {
        let length = usize::from(be16(frame, TRANSPORT_AT + 4).unwrap_or(0)).saturating_sub(8);
        let message = frame.get(UDP_DATA_AT..).and_then(|rest| rest.get(..length)).unwrap_or_default();
        let Some(question) = dns::question_of_query(message) else {
            return refuse(RefusalKind::Name, "an unreadable question".into(), None, None);
        };
        let own_answer =
            |question: &Question, own| answer::datagram_back(frame, &dns::own_answer(message, question, own));
        if !self.rules.iter().any(|rule| rule.target.names(&question.name)) {
            let to_guest = own_answer(&question, OwnAnswer::NoSuchName);
            return refuse(RefusalKind::Name, question.name, to_guest, None);
        }
        if question.is_of_service() {
            return own_answer(&question, OwnAnswer::Nothing)
                .map_or(AllowVerdict::Wait, AllowVerdict::Answer);
        }
        let number = be16(message, 0).unwrap_or(0);
        let fresh = self.queries.ask(guest_port, number, question, now);
        renumber(frame, fresh);
        AllowVerdict::Carry
    }
}

/// Gives a message of the domain name system another number, and its datagram no checksum.
fn renumber(frame: &mut [u8], number: u16) {
    if let Some(place) = frame.get_mut(SUM_AT..UDP_DATA_AT + 2) {
        place[..2].fill(0);
        place[2..].copy_from_slice(&number.to_be_bytes());
    }
}

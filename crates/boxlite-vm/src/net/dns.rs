//! Messages of the domain name system (RFC 1035) as far as a list of allowed names and the names of a network's boxes take: one
//! question, and its addresses.

use std::net::Ipv4Addr;

use super::frame::be16;
use super::names::MAX_NAME;

/// Bytes of the fixed beginning of a message.
const HEADER: usize = 12;
/// The most resource records of a message that are looked at.
const MAX_RECORDS: u16 = 64;
/// The most addresses of an answer of one's own: with the longest name they fit the 512 bytes that every resolver takes.
const MAX_TOLD: usize = 14;
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// Records with the keys to hello servers in secret: `SVCB` and `HTTPS`.
const SERVICE_TYPES: [u16; 2] = [64, 65];

/// An answer that needs no name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnAnswer {
    /// The name has no records of that type.
    Nothing = 0,
    /// There is no such name: resolvers give up at once, where they would try again after a refusal.
    NoSuchName = 3,
}

/// The one question of a query, or of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The name, in lower case and without a dot at its end.
    pub(super) name: String,
    kind: u16,
    class: u16,
    /// Where the question ends in its message.
    end: usize,
}

impl Question {
    /// Whether it asks for the addresses and keys of a service.
    pub(super) fn is_of_service(&self) -> bool {
        SERVICE_TYPES.contains(&self.kind)
    }

    /// Whether it asks for IPv4 addresses.
    pub(super) fn is_of_addresses(&self) -> bool {
        (self.kind, self.class) == (TYPE_A, CLASS_IN)
    }

    /// Whether the other is the same, wherever it ends.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.kind, self.class) == (&other.name, other.kind, other.class)
    }
}

/// An address of the name that was asked for, and how many seconds it may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressRecord {
    pub(super) address: Ipv4Addr,
    pub(super) seconds: u32,
}

/// The question of a query; `None` unless it is a query of exactly one question, whose name is made of ordinary letters.
pub(super) fn question_of_query(message: &[u8]) -> Option<Question> {
    let flags = *message.get(2)?;
    // An ordinary query: neither an answer nor an inverse query, a status request, a notification or an update.
    (flags & 0xf8 == 0).then(|| question(message)).flatten()
}

/// The question of an answer.
pub(super) fn question_of_answer(message: &[u8]) -> Option<Question> {
    (message.get(2)? & RESPONSE != 0).then(|| question(message)).flatten()
}

/// The addresses that an answer without an error gives for its question.
///
/// Every address of the answer section counts, whatever chain of aliases leads to it: whoever is asked for a name decides
/// what it means. Names in records are stepped over and never followed.
pub(super) fn addresses(message: &[u8], question: &Question) -> Vec<AddressRecord> {
    let mut found = Vec::new();
    if message.get(3).is_none_or(|code| code & 0x0f != 0) {
        return found;
    }
    let count = be16(message, 6).unwrap_or(0).min(MAX_RECORDS);
    let mut at = question.end;
    for _ in 0..count {
        // A record that is cut off does not count.
        let Some((record, next)) = record(message, at) else { break };
        found.extend(record);
        at = next;
    }
    found
}

/// An answer to `query` that no name server gave.
pub(super) fn own_answer(query: &[u8], question: &Question, own: OwnAnswer) -> Vec<u8> {
    let mut answer = query[..question.end].to_vec();
    // Recursion is said to be desired if it was; the other counts are none.
    answer[2] = RESPONSE | query[2] & 0x01;
    answer[3] = RECURSION_AVAILABLE | own as u8;
    answer[6..HEADER].fill(0);
    answer
}

/// An answer to `query` with the first 14 of these addresses; each may be remembered for so many seconds.
pub(super) fn address_answer(
    query: &[u8],
    question: &Question,
    addresses: &[Ipv4Addr],
    seconds: u32,
) -> Vec<u8> {
    /// The name of the question, which is the first of the message.
    const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];
    let told = &addresses[..addresses.len().min(MAX_TOLD)];
    let mut answer = own_answer(query, question, OwnAnswer::Nothing);
    answer[7] = told.len() as u8;
    for address in told {
        answer.extend(SAME_NAME);
        answer.extend(TYPE_A.to_be_bytes());
        answer.extend(CLASS_IN.to_be_bytes());
        answer.extend(seconds.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    answer
}

fn question(message: &[u8]) -> Option<Question> {
    if be16(message, 4)? != 1 {
        return None;
    }
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The first name of a message has nothing before it that a pointer could mean.
        if length > 63 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            // A dot, or anything invisible, inside a label would make another name of it.
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_') {
                return None;
            }
            name.push(char::from(byte.to_ascii_lowercase()));
        }
        at += length;
        if name.len() > MAX_NAME {
            return None;
        }
    }
    Some(Question { name, kind: be16(message, at)?, class: be16(message, at + 2)?, end: at + 4 })
}

/// The record at `at`, if it is an address, and where the next one begins.
fn record(message: &[u8], at: usize) -> Option<(Option<AddressRecord>, usize)> {
    let at = after_name(message, at)?;
    let (kind, class, length) = (be16(message, at)?, be16(message, at + 2)?, be16(message, at + 8)?);
    let seconds = u32::from_be_bytes(*message.get(at + 4..)?.first_chunk()?);
    let data = message.get(at + 10..at + 10 + usize::from(length))?;
    let address = (kind == TYPE_A && class == CLASS_IN)
        .then(|| <[u8; 4]>::try_from(data).ok())
        .flatten()
        .map(|octets| AddressRecord { address: octets.into(), seconds });
    Some((address, at + 10 + usize::from(length)))
}

/// Where a name ends, which need not be understood: it goes forwards only.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;

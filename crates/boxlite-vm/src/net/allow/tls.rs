//! The part of a client's TLS that is not encrypted (RFC 8446, RFC 6066), and which server it asks for.
//!
//! A server that lacks a key share asks for a second hello, and may heed the name in that one. So both are read. What
//! comes after is encrypted, or names nobody.

use super::super::names::name_of;

/// The longest hello.
pub(super) const MAX_HELLO: usize = 16 * 1024;
/// The longest record.
const MAX_RECORD: usize = 16 * 1024 + 256;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Every type of a record.
pub(super) const RECORD_TYPES: std::ops::RangeInclusive<u8> = CHANGE_CIPHER_SPEC..=24;

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;
const EARLY_DATA: usize = 42;
/// Names that only the server can read: encrypted hellos, and encrypted server names before them.
const ENCRYPTED_NAMES: [usize; 2] = [0xfe0d, 0xffce];

/// The records of one client.
#[derive(Debug, Default)]
pub(super) struct ClientRecords {
    /// The part of the present record that was read.
    record: Vec<u8>,
    /// The part of the present handshake message that was read.
    message: Vec<u8>,
    /// The name in the first hello.
    name: Option<String>,
}

/// The finding in a hello.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HelloFinding {
    /// Nothing yet: the hello is incomplete.
    Incomplete,
    /// It asks for this server; a second hello may follow.
    Asks(String),
    /// The second hello can still come.
    Open,
    /// It cannot come any more.
    Closed,
}

/// A hello that names no server, or that two servers could read in two ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nameless;

impl ClientRecords {
    /// Whether a hello has begun of which it is not known yet whom it asks for.
    pub(super) fn is_within_hello(&self) -> bool {
        self.name.is_none() || !self.message.is_empty() || self.record.first() == Some(&HANDSHAKE)
    }

    /// Reads on.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<HelloFinding, Nameless> {
        let mut finding = if self.name.is_none() { HelloFinding::Incomplete } else { HelloFinding::Open };
        while !bytes.is_empty() {
            let wanted = self.wanted()?;
            let taken = bytes.len().min(wanted - self.record.len());
            self.record.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.record.len() < 5 || self.record.len() < self.wanted()? {
                continue;
            }
            let record = std::mem::take(&mut self.record);
            match self.whole_record(record[0], &record[5..])? {
                HelloFinding::Closed => return Ok(HelloFinding::Closed),
                HelloFinding::Asks(name) => finding = HelloFinding::Asks(name),
                HelloFinding::Incomplete | HelloFinding::Open => {}
            }
        }
        Ok(finding)
    }

    /// How long the present record is, as far as is known.
    fn wanted(&self) -> Result<usize, Nameless> {
        let Some(header) = self.record.first_chunk::<5>() else { return Ok(5) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let is_record = RECORD_TYPES.contains(&header[0]) && header[1] == 3 && length <= MAX_RECORD;
        if is_record && length > 0 { Ok(5 + length) } else { Err(Nameless) }
    }

    fn whole_record(&mut self, kind: u8, content: &[u8]) -> Result<HelloFinding, Nameless> {
        let is_first = self.name.is_none();
        match kind {
            HANDSHAKE => {}
            _ if is_first || !self.message.is_empty() => return Err(Nameless),
            // Both may come before a second hello.
            CHANGE_CIPHER_SPEC | ALERT => return Ok(HelloFinding::Open),
            // The first hello offered no early data, so that this answers the server's.
            APPLICATION_DATA => return Ok(HelloFinding::Closed),
            _ => return Err(Nameless),
        }
        self.message.extend_from_slice(content);
        if self.message[0] != CLIENT_HELLO {
            return if is_first { Err(Nameless) } else { Ok(HelloFinding::Closed) };
        }
        let Some((header, body)) = self.message.split_first_chunk::<4>() else {
            return Ok(HelloFinding::Incomplete);
        };
        let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        // An encrypted message that happens to begin as a hello does is refused here too: one in 256 resumptions of
        // TLS 1.2 at worst, after which clients try again.
        if length > MAX_HELLO || body.len() > length {
            return Err(Nameless);
        }
        if body.len() < length {
            return Ok(HelloFinding::Incomplete);
        }
        let name = server_name(body).ok_or(Nameless)?;
        self.message.clear();
        match self.name.replace(name.clone()) {
            Some(first) if first != name => Err(Nameless),
            _ => Ok(HelloFinding::Asks(name)),
        }
    }
}

/// The one name in a hello; `None` when it has not exactly one, or hides one.
fn server_name(hello: &[u8]) -> Option<String> {
    let mut hello = Fields(hello);
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let mut extensions = Fields(hello.vector(2)?);
    if !hello.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let body = extensions.vector(2)?;
        // Early data could stand between this hello and another.
        if ENCRYPTED_NAMES.contains(&kind) || kind == EARLY_DATA {
            return None;
        }
        if kind == SERVER_NAME {
            let mut list = Fields(body);
            let mut names = Fields(list.vector(2)?);
            let kind = names.number(1)?;
            let name = names.vector(2)?;
            // One name of one kind: servers differ in which of several they take.
            if found.is_some() || kind != HOST_NAME || !names.0.is_empty() || !list.0.is_empty() {
                return None;
            }
            found = Some(name_of(name)?);
        }
    }
    found
}

/// The rest of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Takes the vector behind its length, which has so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;

//! The beginning of a client's connection, as far as it names a host: TLS, HTTP, or another protocol.

use super::http::Requests;
use super::tls::{self, ClientRecords};

/// Most bytes of a first line that may be of HTTP.
const MAX_LINE: usize = 8 * 1024;
/// Ports whose servers speak HTTP or TLS, so that nothing else may be said to a name there.
const WEB_PORTS: [u16; 2] = [80, 443];

/// Which protocol a client's first bytes are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientProtocol {
    /// They don't tell yet.
    Undecided,
    Tls,
    Http,
    /// One that names nobody.
    Other,
    /// Bytes that a lenient server could take for TLS or HTTP.
    Ambiguous,
}

/// The verdict on bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// The connection may go on with them.
    Fine,
    /// They wait for more.
    More,
    /// The connection may not go on, since it asks for this name, or since it does not say for which.
    Refused(Option<String>),
}

/// Whom a connection may mean.
pub(super) trait Permits {
    /// Whether it may ask for this name.
    fn name(&self, name: &str) -> bool;
    /// Whether it may speak a protocol that names nobody.
    fn nameless(&self) -> bool;
}

/// Whether a rule that gives this port means its own protocol by it.
pub(super) fn is_web(port: u16) -> bool {
    WEB_PORTS.contains(&port)
}

/// The part of a client's greeting that must be remembered.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The first bytes.
    Begun(Vec<u8>),
    /// TLS.
    Tls(ClientRecords),
    /// HTTP, and the first host that it asked for.
    Http(Requests, Option<String>),
    /// Nothing more of it is read.
    Over,
}

impl Default for Greeting {
    fn default() -> Self {
        Self::Begun(Vec::new())
    }
}

impl Greeting {
    /// Whether nothing more needs to be read.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Reads what comes next.
    pub(super) fn read(&mut self, bytes: &[u8], permits: &impl Permits) -> Heard {
        match self {
            Self::Begun(begun) => {
                begun.extend_from_slice(bytes);
                let begun = std::mem::take(begun);
                *self = match protocol(&begun) {
                    ClientProtocol::Undecided => {
                        *self = Self::Begun(begun);
                        return Heard::More;
                    }
                    ClientProtocol::Tls => Self::Tls(ClientRecords::default()),
                    ClientProtocol::Http => Self::Http(Requests::new(), None),
                    ClientProtocol::Other if permits.nameless() => Self::Over,
                    ClientProtocol::Other | ClientProtocol::Ambiguous => return Heard::Refused(None),
                };
                self.read(&begun, permits)
            }
            Self::Tls(records) => match records.read(bytes) {
                Ok(tls::HelloFinding::Asks(name)) if !permits.name(&name) => Heard::Refused(Some(name)),
                Ok(tls::HelloFinding::Closed) => {
                    *self = Self::Over;
                    Heard::Fine
                }
                Ok(_) if records.is_within_hello() => Heard::More,
                Ok(_) => Heard::Fine,
                Err(tls::Nameless) => Heard::Refused(None),
            },
            Self::Http(requests, first) => {
                let mut refused = None;
                let read = requests.read(bytes, |host| {
                    // A name may be forgotten while a connection that asked for it lives.
                    let is_permitted = first.as_deref() == Some(host) || permits.name(host);
                    if is_permitted {
                        first.get_or_insert_with(|| host.to_owned());
                    } else {
                        refused = Some(host.to_owned());
                    }
                    is_permitted
                });
                match read {
                    Ok(true) if requests.is_within_head() => Heard::More,
                    Ok(true) => Heard::Fine,
                    Ok(false) => Heard::Refused(refused),
                    Err(_) => Heard::Refused(None),
                }
            }
            Self::Over => Heard::Fine,
        }
    }
}

/// Tells the protocol. What begins with an empty line, or with a record that is no hello, is left to lenient servers only.
fn protocol(bytes: &[u8]) -> ClientProtocol {
    match *bytes {
        [] => return ClientProtocol::Undecided,
        [22, ..] => return ClientProtocol::Tls,
        [first, ..] if tls::RECORD_TYPES.contains(&first) => return ClientProtocol::Ambiguous,
        // The hello of SSL 2, by which servers of TLS could once be greeted.
        [first, _, 1, ..] if first & 0x80 != 0 => return ClientProtocol::Ambiguous,
        [first] | [first, _] if first & 0x80 != 0 => return ClientProtocol::Undecided,
        [b'\r' | b'\n' | b' ' | b'\t', ..] => return ClientProtocol::Ambiguous,
        _ => {}
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(|byte| *byte != b'\t' && !(b' '..0x7f).contains(byte)) {
        return ClientProtocol::Other;
    }
    let is_http = contains_ignoring_case(line, b"HTTP/") || starts_with_get(line);
    match end {
        _ if is_http => ClientProtocol::Http,
        Some(_) => ClientProtocol::Other,
        None if bytes.len() < MAX_LINE => ClientProtocol::Undecided,
        None => ClientProtocol::Ambiguous,
    }
}

fn contains_ignoring_case(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// A request of the first HTTP has no version.
fn starts_with_get(line: &[u8]) -> bool {
    line.first_chunk::<4>().is_some_and(|word| word.eq_ignore_ascii_case(b"GET "))
}

#[cfg(test)]
#[path = "greeting_tests.rs"]
mod tests;

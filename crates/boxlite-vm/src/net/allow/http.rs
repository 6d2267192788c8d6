//! The requests that a client makes on one connection of HTTP/1 (RFC 9112), and whom each asks for.
//!
//! Servers forgive much, and each of them something else: what two of them could take for two different requests is
//! malformed here. That leaves out what a path does not begin (`CONNECT`, requests to a proxy), folded lines, bare line
//! feeds, codings other than `chunked`, and trailers. A connection that is upgraded to another protocol is over.

use super::super::names::name_of;

/// The most bytes of a request line and its fields.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// The most digits of a length, and of a chunk's size.
const MAX_DIGITS: usize = 15;

/// The part of a connection that comes next.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A request line and its fields, of which this was read.
    Head(Vec<u8>),
    /// So many bytes of a body of a known length.
    Body(u64),
    /// The size of a chunk, of which this was read.
    ChunkSize(Vec<u8>),
    /// So many bytes of a chunk, the end of its line among them.
    Chunk(u64),
    /// Both bytes at the end of a chunk or of the whole body, of which so many were read.
    ChunkEnd { read: usize, is_last: bool },
}

/// The requests of one connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requests(Part);

/// A request that cannot be told from another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Requests {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Part::Head(Vec::new()))
    }

    /// Whether a request has begun of which it is not known yet whom it asks for.
    pub(super) fn is_within_head(&self) -> bool {
        matches!(&self.0, Part::Head(read) if !read.is_empty())
    }

    /// Reads on, and tells `meet` the host of each request; `Ok(false)` is its answer that one may not be asked.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        mut meet: impl FnMut(&str) -> bool,
    ) -> Result<bool, Malformed> {
        while !bytes.is_empty() {
            let (next, rest) = match &mut self.0 {
                Part::Head(read) => {
                    let Some(rest) = take_through(read, bytes, b"\r\n\r\n", MAX_HEAD)? else {
                        return Ok(true);
                    };
                    let head = head(read)?;
                    if !meet(&head.host) {
                        return Ok(false);
                    }
                    (head.body, rest)
                }
                Part::Body(left) | Part::Chunk(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    let rest = &bytes[taken..];
                    match (*left, &self.0) {
                        (0, Part::Chunk(_)) => (Part::ChunkEnd { read: 0, is_last: false }, rest),
                        (0, _) => (Part::Head(Vec::new()), rest),
                        _ => return Ok(true),
                    }
                }
                Part::ChunkSize(read) => {
                    let Some(rest) = take_through(read, bytes, b"\r\n", MAX_DIGITS + 2)? else {
                        return Ok(true);
                    };
                    let size = number(&read[..read.len() - 2], 16)?;
                    let next =
                        if size == 0 { Part::ChunkEnd { read: 0, is_last: true } } else { Part::Chunk(size) };
                    (next, rest)
                }
                Part::ChunkEnd { read, is_last } => {
                    if bytes[0] != b"\r\n"[*read] {
                        return Err(Malformed);
                    }
                    let next = match (*read, *is_last) {
                        (0, is_last) => Part::ChunkEnd { read: 1, is_last },
                        (_, true) => Part::Head(Vec::new()),
                        (_, false) => Part::ChunkSize(Vec::new()),
                    };
                    (next, &bytes[1..])
                }
            };
            (self.0, bytes) = (next, rest);
        }
        Ok(true)
    }
}

/// Moves what `bytes` has up to and including `end` to `read`; `None` when it does not end in them.
fn take_through<'a>(
    read: &mut Vec<u8>,
    bytes: &'a [u8],
    end: &[u8],
    most: usize,
) -> Result<Option<&'a [u8]>, Malformed> {
    let before = read.len();
    read.extend_from_slice(&bytes[..bytes.len().min(most - before)]);
    // The end may have begun in what was read before.
    let from = before.saturating_sub(end.len() - 1);
    match read[from..].windows(end.len()).position(|window| window == end) {
        Some(at) => {
            read.truncate(from + at + end.len());
            Ok(Some(&bytes[read.len() - before..]))
        }
        // Servers that end a line at a bare line feed would be ahead of what is read here.
        None if read.len() >= most || has_bare_line_feed(read) => Err(Malformed),
        None => Ok(None),
    }
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'))
}

/// The head of a request.
struct Head {
    host: String,
    body: Part,
}

fn head(bytes: &[u8]) -> Result<Head, Malformed> {
    let text = bytes.strip_suffix(b"\r\n\r\n").ok_or(Malformed)?;
    let mut lines = Lines(Some(text));
    let is_1_1 = request_line(lines.next().ok_or(Malformed)?)?;
    let (mut host, mut length, mut coding) = (None, None, None);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_field = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
        if !is_field || value.iter().any(|byte| is_control(*byte)) {
            return Err(Malformed);
        }
        let value = value.trim_ascii();
        let field = match name.to_ascii_lowercase().as_slice() {
            b"host" => &mut host,
            b"content-length" => &mut length,
            b"transfer-encoding" => &mut coding,
            _ => continue,
        };
        if field.replace(value).is_some() {
            return Err(Malformed);
        }
    }
    let body = match (length, coding) {
        (None, None) => Part::Head(Vec::new()),
        (Some(length), None) => match number(length, 10)? {
            0 => Part::Head(Vec::new()),
            length => Part::Body(length),
        },
        (None, Some(coding)) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Part::ChunkSize(Vec::new())
        }
        _ => return Err(Malformed),
    };
    Ok(Head { host: host.and_then(host_of).ok_or(Malformed)?, body })
}

/// Lines between CR LF; a lone one of the two stays in its line, where it is a control character.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let end = rest.windows(2).position(|two| two == b"\r\n");
        self.0 = end.map(|end| &rest[end + 2..]);
        Some(end.map_or(rest, |end| &rest[..end]))
    }
}

/// Whether the request is one of HTTP/1.1.
fn request_line(line: &[u8]) -> Result<bool, Malformed> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Malformed) };
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    let is_path = target.first() == Some(&b'/') && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    match version {
        _ if !is_method || !is_path => Err(Malformed),
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Malformed),
    }
}

/// The name of `NAME[:PORT]`.
fn host_of(value: &[u8]) -> Option<String> {
    let mut parts = value.split(|byte| *byte == b':');
    let (name, port) = (parts.next()?, parts.next());
    let is_port = port.is_none_or(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit));
    (is_port && parts.next().is_none()).then(|| name_of(name)).flatten()
}

/// A number that is nothing but digits.
fn number(digits: &[u8], radix: u32) -> Result<u64, Malformed> {
    let is_number = (1..=MAX_DIGITS).contains(&digits.len())
        && digits.iter().all(|digit| char::from(*digit).is_digit(radix));
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number).ok_or(Malformed)?;
    u64::from_str_radix(text, radix).map_err(|_| Malformed)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < b' ' || byte == 0x7f)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

//! A connection whose binary messages come out short, however long its peer made them.
//!
//! A client may send all of a command's standard input as one message or frame. The server must not hold all of that in memory,
//! and bytes have no message boundaries worth keeping. So each binary frame is passed on as binary messages of at most
//! [`MAX_PIECE_BYTES`], before the WebSocket's own reader sees it. Everything else passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest binary message that comes out; a multiple of four, so that each begins with the first byte of the mask.
pub(super) const MAX_PIECE_BYTES: u64 = 64 << 10;
/// Bytes read from the connection at a time.
const READ_BYTES: usize = 16 << 10;
/// The longest head of a frame: two bytes, a length of eight, a mask of four.
const MAX_HEAD_BYTES: usize = 14;
/// The short field of a length that follows in two bytes.
const LENGTH_IN_2_BYTES: u8 = 126;
/// The same for eight bytes.
const LENGTH_IN_8_BYTES: u8 = 127;

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// The connection.
#[derive(Debug)]
pub(crate) struct ShortMessages<S> {
    stream: S,
    /// Bytes that were read and not passed on.
    read: Vec<u8>,
    /// The first byte of `read` that was not passed on.
    at: usize,
    frames: FrameSplitter,
}

impl<S> ShortMessages<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), at: 0, frames: FrameSplitter::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ShortMessages<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.at += this.frames.pass(&this.read[this.at..], to);
            if !to.filled().is_empty() || to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // Everything was taken, be it as the beginning of a head.
            this.at = 0;
            this.read.resize(READ_BYTES, 0);
            let mut fresh = ReadBuf::new(&mut this.read);
            let polled = Pin::new(&mut this.stream).poll_read(context, &mut fresh);
            let length = fresh.filled().len();
            this.read.truncate(length);
            ready!(polled)?;
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ShortMessages<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where in its peer's frames the connection is, without the connection.
#[derive(Debug, Default)]
struct FrameSplitter {
    /// The beginning of the next frame's head.
    head: Vec<u8>,
    /// A head that is to be passed on before anything else.
    out: Vec<u8>,
    /// Payload before the next head that is to be passed on.
    passing: u64,
    /// The rest of a binary frame, after `passing`.
    rest: Option<BinaryRest>,
    /// The frame before was part of a binary message that goes on.
    in_binary: bool,
}

/// The rest of a binary frame that is passed on in pieces.
#[derive(Debug)]
struct BinaryRest {
    /// The first byte of each piece's head.
    first: u8,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl FrameSplitter {
    /// Passes on what `from` and the room in `to` allow; returns how many bytes of `from` were taken. All are, unless there
    /// was no room.
    fn pass(&mut self, from: &[u8], to: &mut ReadBuf<'_>) -> usize {
        let mut taken = 0;
        loop {
            if !self.out.is_empty() {
                let count = self.out.len().min(to.remaining());
                to.put_slice(&self.out[..count]);
                self.out.drain(..count);
                if !self.out.is_empty() {
                    return taken;
                }
            }
            if self.passing > 0 {
                let most = usize::try_from(self.passing).unwrap_or(usize::MAX);
                let count = most.min(to.remaining()).min(from.len() - taken);
                to.put_slice(&from[taken..taken + count]);
                taken += count;
                self.passing -= count as u64;
                if self.passing > 0 {
                    return taken;
                }
            }
            if let Some(rest) = self.rest.take().filter(|rest| rest.length > 0) {
                self.begin_piece(rest);
                continue;
            }
            let Some(&byte) = from.get(taken) else { return taken };
            self.head.push(byte);
            taken += 1;
            self.read_head();
        }
    }

    /// Begins the frame once its head is whole.
    fn read_head(&mut self) {
        let &[first, second, ..] = &*self.head else { return };
        let extended = match second & 0x7f {
            LENGTH_IN_2_BYTES => 2,
            LENGTH_IN_8_BYTES => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        if self.head.len() < 2 + extended + if masked { 4 } else { 0 } {
            return;
        }
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.head[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let opcode = first & OPCODE;
        if opcode == BINARY || (opcode == CONTINUATION && self.in_binary) {
            self.in_binary = first & FIN == 0;
            let mask = self.head[2 + extended..].first_chunk().copied();
            self.head.clear();
            // The reserved bits stay, for the WebSocket's reader to refuse.
            let first = FIN | (first & !(FIN | OPCODE)) | BINARY;
            self.begin_piece(BinaryRest { first, mask, length });
        } else {
            self.in_binary &= opcode != TEXT;
            self.out.append(&mut self.head);
            self.passing = length;
        }
    }

    fn begin_piece(&mut self, mut rest: BinaryRest) {
        let length = rest.length.min(MAX_PIECE_BYTES);
        rest.length -= length;
        let masked = if rest.mask.is_some() { 0x80 } else { 0 };
        self.out.reserve(MAX_HEAD_BYTES);
        self.out.push(rest.first);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < LENGTH_IN_2_BYTES => self.out.push(masked | short),
            (_, Ok(medium)) => {
                self.out.push(masked | LENGTH_IN_2_BYTES);
                self.out.extend(medium.to_be_bytes());
            }
            _ => {
                self.out.push(masked | LENGTH_IN_8_BYTES);
                self.out.extend(length.to_be_bytes());
            }
        }
        self.out.extend(rest.mask.iter().flatten());
        self.passing = length;
        self.rest = Some(rest);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{SinkExt, StreamExt};
    use tokio::io::AsyncWriteExt;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::{Message, Role};
    use tokio_tungstenite::tungstenite::{Error, error::CapacityError};

    use super::super::{MAX_TEXT_BYTES, over};
    use super::*;

    fn bytes(length: usize) -> Bytes {
        (0..length).map(|n| (n * 7 % 251) as u8).collect::<Vec<u8>>().into()
    }

    /// Sends `messages` through a connection of `width` bytes and returns what the server's end received.
    async fn received(messages: Vec<Message>, width: usize) -> Vec<Message> {
        let (theirs, ours) = tokio::io::duplex(width);
        let sending = async move {
            let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            for message in messages {
                client.send(message).await.unwrap();
            }
        };
        let receiving = async move {
            let mut server = over(ours).await;
            let mut received = Vec::new();
            while let Some(Ok(message)) = server.next().await {
                received.push(message);
            }
            received
        };
        tokio::join!(sending, receiving).1
    }

    /// Mutation tried: with pieces of 65 533 bytes, the content after the first piece is unmasked wrongly.
    #[tokio::test]
    async fn a_long_message_arrives_whole_in_short_ones() {
        for width in [1, 3, 8192, 1 << 20] {
            for length in [0, 1, 125, 126, 65_535, 65_536, 65_537, 1 << 20] {
                let sent = vec![Message::Binary(bytes(length)), Message::text("end")];
                let mut got = received(sent, width.max(length / 4096)).await;
                assert_eq!(got.pop(), Some(Message::text("end")));
                let pieces: Vec<Bytes> = got.into_iter().map(Message::into_data).collect();
                assert!(pieces.iter().all(|piece| piece.len() as u64 <= MAX_PIECE_BYTES));
                assert_eq!(pieces.concat(), bytes(length), "{length} bytes, {width} at a time");
            }
        }
    }

    #[tokio::test]
    async fn fragments_pass_with_what_comes_between_them() {
        let frame = |data: Bytes, code, last| Message::Frame(Frame::message(data, OpCode::Data(code), last));
        let sent = vec![
            frame(bytes(100_000), Data::Binary, false),
            Message::Ping(Bytes::from_static(b"p")),
            frame(bytes(70_000), Data::Continue, false),
            frame(bytes(3), Data::Continue, true),
            frame(Bytes::from_static(b"te"), Data::Text, false),
            frame(Bytes::from_static(b"xt"), Data::Continue, true),
        ];
        let got = received(sent, 1000).await;
        let lengths: Vec<usize> = got.iter().map(Message::len).collect();
        assert_eq!(lengths, [65_536, 34_464, 1, 65_536, 4_464, 3, 4]);
        assert_eq!(got.last(), Some(&Message::text("text")));
    }

    #[tokio::test]
    async fn a_long_text_and_an_unmasked_frame_are_refused() {
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        let mut server = over(ours).await;
        theirs.write_all(&[FIN | BINARY, 1, b'x']).await.unwrap();
        assert!(matches!(server.next().await, Some(Err(Error::Protocol(_)))));
        let (theirs, ours) = tokio::io::duplex(1 << 20);
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        client.send(Message::text("x".repeat(MAX_TEXT_BYTES + 1))).await.unwrap();
        let refused = over(ours).await.next().await;
        assert!(matches!(refused, Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. })))));
    }
}

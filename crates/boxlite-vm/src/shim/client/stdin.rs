//! The input of an operation, with back-pressure.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use boxlite_proto::{Frame, MAX_PAYLOAD, ProtoError, SendWindow, Stream};
use tokio::io::AsyncWrite;

use crate::shim::sink::FrameSink;

/// The state that the writer of an input shares with the listener of its connection.
#[derive(Debug, Clone)]
pub(super) struct StdinWriter(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    window: SendWindow,
    closed: bool,
    waiting: Option<Waker>,
}

impl StdinWriter {
    /// The input of `channel`, with `used` bytes of its window in use.
    pub(super) fn new(channel: u32, used: u32) -> Self {
        let mut window = SendWindow::new(channel, Stream::Stdin);
        window.sent((used as usize).min(window.available()));
        Self(Arc::new(Mutex::new(State { window, closed: false, waiting: None })))
    }

    /// The other end takes `bytes` more.
    pub(super) fn granted(&self, bytes: u32) -> Result<(), ProtoError> {
        let mut state = self.state();
        state.window.granted(bytes)?;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
        Ok(())
    }

    /// The other end takes no more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an operation's input; shutting it down is end-of-file, dropping it leaves the input open.
#[derive(Debug)]
pub(super) struct StdinSink {
    channel: u32,
    sink: FrameSink,
    input: StdinWriter,
    ended: bool,
}

impl StdinSink {
    pub(super) fn new(channel: u32, sink: FrameSink, input: StdinWriter) -> Self {
        Self { channel, sink, input, ended: false }
    }
}

impl AsyncWrite for StdinSink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.input.state();
        if state.closed || self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(state.window.available()).min(MAX_PAYLOAD);
        if length == 0 && !bytes.is_empty() {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.window.sent(length);
        let bytes = bytes[..length].to_vec();
        self.sink.send(Frame::Data { channel: self.channel, stream: Stream::Stdin, bytes });
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.sink.send(Frame::Eof { channel: self.channel, stream: Stream::Stdin });
        }
        Poll::Ready(Ok(()))
    }
}

//! A client's socket, which breaks once the client takes nothing of what it is sent for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::TcpKeepalive;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::connections::ConnectionPermit;

/// Most bytes that the kernel keeps unsent. With the kernel's own choice, megabytes would have to drain before a slow
/// client shows as one that makes progress.
const MAX_UNSENT_BYTES: u32 = 128 << 10;

/// How long a connection is idle before its client is probed.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// The time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer after which the client counts as gone.
const PROBES: u32 = 4;

/// One client's socket, and the permit of its connection.
///
/// A write that waits is given up after the write timeout. Each byte that the kernel takes begins the time anew, so a
/// response of any length may take as long as it needs while the client reads.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream, permit: Arc<ConnectionPermit>) -> Self {
        // Both only make progress more visible and answers faster.
        let _ = stream.set_nodelay(true);
        let socket = socket2::SockRef::from(&stream);
        let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
        // A client whose host or network is gone sends no end, and an idle tunnel would wait for it for ever.
        let probes =
            TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
        let _ = socket.set_tcp_keepalive(&probes);
        Self { stream, permit, stalled: None }
    }

    /// Notes whether a write made progress, and ends it when there was none for too long.
    fn progress<T>(&mut self, context: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let timeout = self.permit.write_timeout();
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let message = format!("the client has taken nothing for {} s", timeout.as_secs_f32());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.progress(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has what was written: there is nothing to wait for.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::connections::{ConnectionLimits, Connections};

    /// Before, a tunnel to a client whose network is gone stayed for ever, with its process in the box.
    #[tokio::test]
    async fn an_idle_client_is_probed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let permit = Connections::new(ConnectionLimits::default()).admit(address.ip()).unwrap();
        let socket = ClientSocket::new(accepted.unwrap().0, permit);
        let kept = socket2::SockRef::from(&socket.stream);
        assert!(kept.keepalive().unwrap());
        assert_eq!(
            (kept.tcp_keepalive_time().unwrap(), kept.tcp_keepalive_retries().unwrap()),
            (PROBE_AFTER, PROBES)
        );
    }
}

//! Queues of frames towards the guest and towards clients.
//!
//! Their length is bounded by the flow-control windows of what they carry, so a sender never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use boxlite_proto::{Frame, ProtoError, Stream};
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Encoded bytes written to a socket in one call, at most (a single frame may exceed it).
const BATCH: usize = 256 * 1024;

/// The sending end of one connection's queue.
#[derive(Debug, Clone)]
pub(super) struct FrameSink {
    frames: mpsc::UnboundedSender<Frame>,
    queued: Arc<AtomicUsize>,
}

/// The other end, to be drained by [`FrameSource::drain_into`].
#[derive(Debug)]
pub(super) struct FrameSource {
    frames: mpsc::UnboundedReceiver<Frame>,
    queued: Arc<AtomicUsize>,
}

/// A new queue.
pub(super) fn queue() -> (FrameSink, FrameSource) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    (FrameSink { frames: sender, queued: Arc::clone(&queued) }, FrameSource { frames: receiver, queued })
}

impl FrameSink {
    /// Queues `frame`; a connection that has ended takes it silently.
    pub(super) fn send(&self, frame: Frame) {
        self.queued.fetch_add(weight(&frame), Ordering::Relaxed);
        let _ = self.frames.send(frame);
    }

    /// Queues a control message.
    pub(super) fn control<T: Serialize>(&self, message: &T) -> Result<(), ProtoError> {
        self.send(Frame::control(message)?);
        Ok(())
    }

    /// Queues credit for the peer's `stream`.
    pub(super) fn credit(&self, channel: u32, stream: Stream, bytes: u32) {
        self.send(Frame::Credit { channel, stream, bytes });
    }

    /// Bytes that have not been written yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

impl FrameSource {
    /// Writes frames to `write` until the queue's last sender is gone and it is empty, or writing fails.
    pub(super) async fn drain_into(mut self, mut write: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut batch = Vec::with_capacity(16 * 1024);
        while let Some(frame) = self.frames.recv().await {
            let mut weights = weight(&frame);
            frame.encode(&mut batch);
            while batch.len() < BATCH {
                let Ok(frame) = self.frames.try_recv() else { break };
                weights += weight(&frame);
                frame.encode(&mut batch);
            }
            write.write_all(&batch).await?;
            self.queued.fetch_sub(weights, Ordering::Relaxed);
            batch.clear();
            batch.shrink_to(BATCH);
        }
        write.shutdown().await
    }

    /// The next frame, for a reader in this process; `None` once the last sender is gone.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.queued.fetch_sub(weight(&frame), Ordering::Relaxed);
        Some(frame)
    }

    #[cfg(test)]
    pub(super) fn take(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frames.try_recv().ok()).collect()
    }
}

fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Control(bytes) | Frame::Data { bytes, .. } => bytes.len() + boxlite_proto::HEADER_LEN,
        _ => 16,
    }
}

//! Credit accounting of one stream, at its sender and at its receiver. See the crate's [flow control](crate#flow-control).

use crate::{ProtoError, stream::Stream};

/// Bytes that a sender may have sent on one stream before its receiver has consumed them.
pub const WINDOW: u32 = 256 * 1024;

/// The sender's side: how much it may still send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendWindow {
    channel: u32,
    stream: Stream,
    available: u32,
}

impl SendWindow {
    /// A fully open window of [`WINDOW`] bytes.
    pub fn new(channel: u32, stream: Stream) -> Self {
        Self { channel, stream, available: WINDOW }
    }

    /// Bytes that may be sent now.
    pub fn available(&self) -> usize {
        self.available as usize
    }

    /// Records bytes that were sent; more than [`Self::available`] is a defect of the caller and saturates.
    pub fn sent(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.available = self.available.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Adds credit that the receiver granted.
    ///
    /// # Errors
    /// [`ProtoError::CreditOverflow`] when the window would exceed [`WINDOW`].
    pub fn granted(&mut self, bytes: u32) -> Result<(), ProtoError> {
        match self.available.checked_add(bytes) {
            Some(sum) if sum <= WINDOW => {
                self.available = sum;
                Ok(())
            }
            _ => Err(ProtoError::CreditOverflow {
                channel: self.channel,
                stream: self.stream,
                granted: bytes,
                window: WINDOW,
            }),
        }
    }
}

/// The receiver's side: how much its peer may still send, and how much was consumed but not granted again yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveWindow {
    channel: u32,
    stream: Stream,
    allowed: u32,
    unconsumed: u32,
    owed: u32,
}

impl ReceiveWindow {
    /// A fully open window of [`WINDOW`] bytes.
    pub fn new(channel: u32, stream: Stream) -> Self {
        Self { channel, stream, allowed: WINDOW, unconsumed: 0, owed: 0 }
    }

    /// Records bytes that arrived.
    ///
    /// # Errors
    /// [`ProtoError::WindowExceeded`] when the peer had no credit for them.
    pub fn received(&mut self, bytes: usize) -> Result<(), ProtoError> {
        let exceeded = ProtoError::WindowExceeded {
            channel: self.channel,
            stream: self.stream,
            sent: bytes,
            allowed: self.allowed,
        };
        let count = u32::try_from(bytes).map_err(|_| exceeded.clone())?;
        self.allowed = self.allowed.checked_sub(count).ok_or(exceeded)?;
        self.unconsumed += count;
        Ok(())
    }

    /// Records bytes that were passed on. Returns the credit to grant, once a quarter of the window has gathered.
    pub fn consumed(&mut self, bytes: usize) -> Option<u32> {
        debug_assert!(bytes <= self.unconsumed as usize);
        let count = self.unconsumed.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.unconsumed -= count;
        self.owed += count;
        if self.owed < WINDOW / 4 {
            return None;
        }
        let grant = std::mem::take(&mut self.owed);
        self.allowed += grant;
        Some(grant)
    }
}

#[cfg(test)]
mod tests;

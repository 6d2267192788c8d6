//! Ways in which a peer can break the protocol.

use crate::stream::Stream;

/// A peer broke the protocol.
///
/// Every variant ends the connection: after it, the two ends no longer agree on where the next frame begins or on how
/// much may be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// A frame announced a payload above [`crate::MAX_PAYLOAD`].
    #[error("a frame announces {length} bytes, the most is {limit}")]
    Oversize {
        /// Bytes announced.
        length: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// The parts of one control message exceed [`crate::MAX_CONTROL`].
    #[error("a control message has {length} bytes or more, the most is {limit}")]
    ControlOversize {
        /// Bytes seen so far.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A frame of no known kind.
    #[error("a frame has the unknown kind {0}")]
    UnknownKind(u8),
    /// A frame whose payload does not fit its kind.
    #[error("a frame of kind {kind} has a malformed payload of {length} bytes")]
    Payload {
        /// The kind byte.
        kind: u8,
        /// Bytes in the payload.
        length: usize,
    },
    /// A control message that is not the JSON this version speaks.
    #[error("a control message cannot be understood: {0}")]
    Control(String),
    /// A peer granted more credit than a window holds.
    #[error("{stream} of channel {channel} was granted {granted} bytes beyond its window of {window}")]
    CreditOverflow {
        /// The channel concerned.
        channel: u32,
        /// The stream concerned.
        stream: Stream,
        /// Bytes of the offending grant.
        granted: u32,
        /// Bytes a window holds.
        window: u32,
    },
    /// A peer sent more than it had credit for.
    #[error("{stream} of channel {channel} carried {sent} bytes with {allowed} left in its window")]
    WindowExceeded {
        /// The channel concerned.
        channel: u32,
        /// The stream concerned.
        stream: Stream,
        /// Bytes of the offending frame.
        sent: usize,
        /// Bytes that were allowed.
        allowed: u32,
    },
}

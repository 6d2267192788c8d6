//! Wire types between the host, the shim and the guest agent.
//!
//! One codec serves both hops: client to shim (a Unix socket) and shim to guest (a virtio-serial port). The crate
//! does no I/O: bytes go in, [`Frame`]s come out, and the other way round. Each end distrusts the other, so every
//! length is bounded before it is believed, nothing panics on garbage, and a decoder holds at most one frame plus
//! one partial control message.
//!
//! A stream of bytes belongs to a *channel* (the id of an exec or copy) and is one of [`Stream::Stdin`],
//! [`Stream::Stdout`], [`Stream::Stderr`]. Each has a window of [`WINDOW`] bytes, opened implicitly when the channel
//! is; the receiver reopens it with [`Frame::Credit`] as it consumes. A sender out of credit stops reading its
//! source, so bulk on one channel neither delays control nor grows anybody's memory.

mod error;
mod flow;
mod frame;
mod guest;
mod op;
mod shim;

pub use error::ProtoError;
pub use flow::{ReceiveWindow, SendWindow, WINDOW};
pub use frame::{Decoder, Frame, HEADER_LEN, MAX_CONTROL, MAX_PAYLOAD, Stream};
pub use guest::{BootConfig, BootTimings, FromGuest, HostEntry, NetConfig, ShareMount, ToGuest};
pub use op::{
    ExecFailure, ExecSpec, ExitStatus, FileKind, FileStat, GuestMetrics, Op, OpEvent, OpFailure, WinSize,
};
pub use shim::{MainState, ShimError, ShimReply, ShimRequest, ShimStatus};

/// Version of frames and messages; both ends name theirs in their hello and refuse another.
pub const PROTOCOL_VERSION: u32 = 2;

/// The ability of an agent whose kernel has touched neither disk nor network card when it says hello, so that the memory
/// of its guest holds nothing of its box.
pub const UNTOUCHED: &str = "untouched";

/// Name of the virtio-serial port that the agent answers on.
pub const AGENT_PORT: &str = "agent";

/// The channel that carries a box's main process between shim and guest.
pub const MAIN_CHANNEL: u32 = 1;

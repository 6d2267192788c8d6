//! The protocol between a client, the shim that owns a box, and the guest agent inside it.
//!
//! The crate turns messages into bytes and bytes into messages, and does no I/O: the caller moves the bytes.
//!
//! ```text
//! client ── Unix socket ──▶ shim ── virtio-serial port ──▶ guest agent
//!          ShimRequest ▶            ToGuest ▶
//!          ◀ ShimReply              ◀ FromGuest
//!          ◀ data, credit ▶         ◀ data, credit ▶
//! ```
//!
//! # Layout
//!
//! | module | holds |
//! | --- | --- |
//! | `frame` | [`Frame`], its encoding, and the [`Decoder`] that restores frames from bytes split in any way |
//! | `stream` | [`Stream`]: standard input, output and error of a channel |
//! | `flow` | [`SendWindow`] and [`ReceiveWindow`]: the credit of one stream at either end |
//! | `shim` | first hop: [`ShimRequest`], [`ShimReply`], [`ShimStatus`] |
//! | `execution` | what the first hop says of executions that a shim holds: [`HoldTerms`], [`ExecutionState`] |
//! | `health` | the check of a box's health: [`HealthProbe`], and what of it goes over both hops |
//! | `guest` | second hop: [`ToGuest`], [`FromGuest`], [`BootConfig`] |
//! | `op` | what both hops carry: [`Op`], [`OpEvent`], and their parts |
//! | `error` | [`ProtoError`]: what a peer can do wrong |
//!
//! # Protocol
//!
//! A connection is a sequence of frames in each direction. A frame has a header of [`HEADER_LEN`] bytes, `{payload length
//! u32, kind u8, channel u32}` in little endian, and then its payload. Control messages are JSON and may span several
//! frames; everything else fits one.
//!
//! ## Client to shim
//!
//! The client sends `Hello` with its [`PROTOCOL_VERSION`]. The shim answers with its own and refuses another
//! with [`ShimError::Version`]. After that the client may send any request at any time, and several clients may be
//! connected at once. Requests that came with an ability, such as [`EXECUTIONS`], may be sent only to a shim whose `Hello`
//! names it: another takes them for a broken protocol.
//!
//! ## Shim to guest
//!
//! The agent speaks first: `Hello` with its version, another of which the shim refuses, and its abilities. The shim
//! answers `Boot`, and the agent answers that with `Ready` or `BootFailed`. Operations follow until `Shutdown`, which the
//! agent answers with `Down` once every filesystem is flushed.
//! The main process of a box is an exec like any other, on [`MAIN_CHANNEL`].
//!
//! ## Operations
//!
//! An [`Op`] carries an id that its sender chose. The id is also the *channel* of the operation's streams. Its last
//! [`OpEvent`] comes after all of its output and frees the id. [`Op::with_id`], [`OpEvent::with_id`] and
//! [`Frame::on_channel`] renumber for a forwarder.
//!
//! # Flow control
//!
//! Each [`Stream`] of a channel has a window of [`WINDOW`] bytes, open from the start. The receiver reopens it with
//! [`Frame::Credit`] as it consumes. A sender without credit stops reading its source, so bulk data on one channel
//! neither delays control messages nor grows the memory of anyone on the way. [`Frame::Eof`] ends a stream from its
//! sender's side, [`Frame::Close`] from its receiver's.
//!
//! # Limits
//!
//! Neither end trusts the other. Every length is checked before memory is set aside for it: a payload has at most
//! [`MAX_PAYLOAD`] bytes, a control message at most [`MAX_CONTROL`], and a [`Decoder`] holds at most one frame and one
//! partial control message. No input makes this crate panic, and every [`ProtoError`] ends the connection.
//!
//! # Compatibility
//!
//! The names and fields of messages are part of the protocol, because they travel as JSON; the Rust names of the types
//! are not. The tests of `op` pin the text of the messages. A change that an older peer would misread raises
//! [`PROTOCOL_VERSION`].

mod error;
mod execution;
mod flow;
mod frame;
mod guest;
mod health;
mod op;
mod shim;
mod stream;

pub use error::ProtoError;
pub use execution::{
    ExecutionEnd, ExecutionLimit, ExecutionState, HoldTerms, KEPT_TIMEOUT, ReapAction, UnattendedPolicy,
    reap_action,
};
pub use flow::{ReceiveWindow, SendWindow, WINDOW};
pub use frame::{Decoder, Frame, HEADER_LEN, MAX_CONTROL, MAX_PAYLOAD};
pub use guest::{
    BootConfig, BootTimings, DiskMount, FromGuest, HostEntry, NetConfig, SHARED_FILE, ShareMount, Sysctl,
    TmpfsMount, ToGuest, Ulimit, UlimitKind,
};
pub use health::{HealthProbe, ProbeEvent, ProbeOutcome, ProbeRecord, ProbeReport};
pub use op::{
    ExecFailure, ExecSpec, FileKind, FileStat, GuestMetrics, GuestProcess, GuestProcesses, Op, OpEvent,
    OpFailure, ProcessExit, WinSize,
};
pub use shim::{
    DiskIdentity, GivenInput, GuestStart, MainState, NetworkRefusals, NetworkUsage, PeerUsage, RefusalKind,
    RefusedDestination, ShimError, ShimReply, ShimRequest, ShimStatus,
};
pub use stream::Stream;

/// Version of frames and messages. Both ends name theirs in their hello, and the shim refuses another.
pub const PROTOCOL_VERSION: u32 = 3;

/// The ability of an agent whose kernel has a timer, and has touched neither disk nor network card when it says hello.
///
/// The memory of such a guest works, holds nothing of its box and may serve other boxes as a template.
pub const UNTOUCHED: &str = "untouched";

/// The ability of an agent that looks for shares that were plugged in while it waited for [`ToGuest::Boot`].
pub const PLUGGED_SHARES: &str = "plugged-shares";

/// The ability of an agent that mounts named volumes. Another would leave them out, and the box would write to its root disk.
pub const DISKS: &str = "disks";
/// The ability of an agent that takes [`ToGuest::SetClock`].
pub const CLOCK: &str = "clock";

/// The ability of an agent that checks the health of its box by [`BootConfig::health`].
pub const HEALTH: &str = "health";

/// The slot for virtio devices (the `_UID` that ACPI gives it) of the disk with the kernel's modules. A slot's number is that of its
/// interrupt, and this one is free of those that a PC always has; QEMU fills the other slots from the last one, 23, down.
pub const MODULES_SLOT: u32 = 11;
/// The ability of a shim that holds executions for clients that come and go.
pub const EXECUTIONS: &str = "executions.1";
/// The ability of a shim that opens a new overlay before it goes over to it, and has the guest stand still only for that.
pub const FROZEN_SWITCH: &str = "frozen_switch.1";

/// Name of the virtio-serial port that the agent answers on.
pub const AGENT_PORT: &str = "agent";

/// The channel that carries a box's main process between shim and guest.
pub const MAIN_CHANNEL: u32 = 1;

//! Our standard streams, connected to a command in a box.
//!
//! `session` moves output and decides when the session ends; `stdin` pumps input and looks for the `detach` keys; `signals`
//! watches for signals and passes them and window sizes on; `tty` is our own terminal.

mod detach;
mod session;
mod signals;
mod stdin;
mod tty;

pub(crate) use detach::{DetachArgs, DetachKeys};
pub(crate) use session::{SessionExit, Wiring, conclude, connect, detach_from};
pub(crate) use signals::Interruptions;
pub(crate) use tty::{QuietTerminal, output_width, window_size_or_default};

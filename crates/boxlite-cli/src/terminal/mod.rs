//! The terminal, or what stands in for it, wired to a command in a box.

mod detach;
mod raw;
mod session;
mod signals;
mod stdin;

use std::os::fd::BorrowedFd;

use boxlite::WindowSize;

pub(crate) use session::{End, Wiring, conclude, connect, let_go};
pub(crate) use signals::interruption;

/// What a terminal has when nothing better is known.
const USUAL: WindowSize = WindowSize { rows: 24, columns: 80 };

/// The size of our terminal, from whichever of the standard streams is one.
pub(crate) fn window_size() -> Option<WindowSize> {
    let streams: [BorrowedFd<'_>; 3] =
        [rustix::stdio::stdout(), rustix::stdio::stdin(), rustix::stdio::stderr()];
    let size = streams.into_iter().find_map(|fd| rustix::termios::tcgetwinsize(fd).ok())?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// [`window_size`], or the usual one.
pub(crate) fn window_size_or_usual() -> WindowSize {
    window_size().unwrap_or(USUAL)
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

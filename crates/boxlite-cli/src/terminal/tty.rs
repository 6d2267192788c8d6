//! Our own terminal: its size, and raw mode for as long as a guard lives.

use std::os::fd::BorrowedFd;

use boxlite::WindowSize;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The size of a terminal that is not known better.
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Returns the size of our terminal, from the first standard stream that is one.
pub(super) fn window_size() -> Option<WindowSize> {
    let streams: [BorrowedFd<'_>; 3] = [stdout(), stdin(), stderr()];
    let size = streams.into_iter().find_map(|fd| rustix::termios::tcgetwinsize(fd).ok())?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Returns the columns of the terminal that standard output is, if it is one.
pub(crate) fn output_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// Returns [`window_size`], or the default.
pub(crate) fn window_size_or_default() -> WindowSize {
    window_size().unwrap_or(DEFAULT_SIZE)
}

/// Tells whether standard input is a terminal.
pub(super) fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

/// Standard input's terminal in raw mode; dropping it restores the earlier mode.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode; `None` when standard input is not a terminal.
    pub(super) fn enter() -> Option<Self> {
        if !isatty(stdin()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Standard input's terminal without an echo; dropping it restores the earlier mode.
#[derive(Debug)]
pub(crate) struct QuietTerminal(());

/// The mode to restore.
static LOUD: std::sync::Mutex<Option<Termios>> = std::sync::Mutex::new(None);

impl QuietTerminal {
    /// Turns the echo off.
    pub(crate) fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        *LOUD.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        tcsetattr(stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(()))
    }

    /// Restores the mode, for an owner that will not be dropped.
    pub(crate) fn restore() {
        if let Some(before) = LOUD.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            // The terminal may be gone.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for QuietTerminal {
    fn drop(&mut self) {
        Self::restore();
    }
}

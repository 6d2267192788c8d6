//! Signals by name or number.

use boxlite::parse_signal;

/// Reads `KILL`, `SIGKILL`, `sigkill` or `9`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    parse_signal(text).map_err(|error| error.chain().to_string())
}

/// Checks a signal but keeps it as it was written.
pub(crate) fn signal_name(text: &str) -> Result<String, String> {
    signal(text).map(|_| text.to_owned())
}

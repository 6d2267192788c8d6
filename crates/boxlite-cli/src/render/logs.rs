//! The output of `logs`, on standard output and standard error.

use std::io::{self, Write};

use boxlite::{LogLine, OutputStream};

/// Writes pieces of a log, each to the stream that it came from.
#[derive(Debug)]
pub(crate) struct LogWriter<O, E> {
    out: O,
    err: E,
    timestamps: bool,
    out_mid_line: bool,
    err_mid_line: bool,
}

impl<O: Write, E: Write> LogWriter<O, E> {
    /// Puts the time before each line if `timestamps` is set.
    pub(crate) fn new(out: O, err: E, timestamps: bool) -> Self {
        Self { out, err, timestamps, out_mid_line: false, err_mid_line: false }
    }

    /// Writes one piece, which may be less than a line.
    pub(crate) fn write(&mut self, line: &LogLine) -> io::Result<()> {
        let stamp = format!("{:.9} ", line.at);
        match line.stream {
            OutputStream::Stdout => {
                piece(&mut self.out, &mut self.out_mid_line, self.timestamps.then_some(&stamp), &line.bytes)
            }
            OutputStream::Stderr => {
                piece(&mut self.err, &mut self.err_mid_line, self.timestamps.then_some(&stamp), &line.bytes)
            }
        }
    }
}

fn piece(to: &mut impl Write, mid_line: &mut bool, stamp: Option<&String>, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.split_inclusive(|&byte| byte == b'\n') {
        if let (Some(stamp), false) = (stamp, *mid_line) {
            to.write_all(stamp.as_bytes())?;
        }
        to.write_all(part)?;
        *mid_line = !part.ends_with(b"\n");
    }
    to.flush()
}

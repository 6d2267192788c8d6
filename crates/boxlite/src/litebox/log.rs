//! The output of a box's main process, line by line.

use std::collections::HashMap;

use boxlite_home::BoxPaths;
use boxlite_types::{Doing, LogLine, LogOptions, OutputStream, Result};
use boxlite_vm::shim::{MainLog, Record, old_path};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::time;

/// The lines that are kept and wanted, oldest first, and the position behind the last byte read.
pub(crate) fn history(paths: &BoxPaths, options: &LogOptions) -> Result<(Vec<LogLine>, u64)> {
    let (mut lines, mut position) = (LineAssembler::default(), 0);
    if options.console {
        return Ok((wanted(console(paths)?, options), position));
    }
    for record in MainLog::open(&paths.main_log(), 0)? {
        let record = record?;
        position = position.max(record.position + record.bytes.len() as u64);
        lines.add(&record);
    }
    Ok((wanted(lines.finish(), options), position))
}

fn wanted(mut lines: Vec<LogLine>, options: &LogOptions) -> Vec<LogLine> {
    if let Some(since) = options.since {
        lines.retain(|line| line.at >= since);
    }
    if let Some(tail) = options.tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    lines
}

/// The guest's console, whose lines bear no time of their own: each has that of the file it is in.
fn console(paths: &BoxPaths) -> Result<Vec<LogLine>> {
    let path = paths.console_log();
    let mut lines = Vec::new();
    for path in [old_path(&path), path] {
        let contents = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.doing("reading the log", &path)?,
        };
        let modified =
            std::fs::metadata(&path).and_then(|found| found.modified()).doing("examining", &path)?;
        let at = Timestamp::try_from(modified).unwrap_or_default();
        let stream = OutputStream::Stdout;
        let contents = Bytes::from(contents);
        let pieces = contents.split_inclusive(|byte| *byte == b'\n');
        lines.extend(pieces.map(|piece| LogLine { at, stream, bytes: contents.slice_ref(piece) }));
    }
    Ok(lines)
}

/// Joins the pieces of each stream's lines; a line bears the time of its first piece.
#[derive(Default)]
struct LineAssembler {
    done: Vec<LogLine>,
    open: HashMap<OutputStream, (Timestamp, BytesMut)>,
}

impl LineAssembler {
    fn add(&mut self, record: &Record) {
        let stream = OutputStream::from(record.stream);
        let at = time::from_unix_ms(record.at_unix_ms).unwrap_or_default();
        for piece in record.bytes.split_inclusive(|byte| *byte == b'\n') {
            let (begun, bytes) = self.open.entry(stream).or_insert_with(|| (at, BytesMut::new()));
            bytes.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = LogLine { at: *begun, stream, bytes: bytes.split().freeze() };
                self.done.push(line);
                self.open.remove(&stream);
            }
        }
    }

    fn finish(mut self) -> Vec<LogLine> {
        let rest = self.open.into_iter();
        self.done.extend(rest.map(|(stream, (at, bytes))| LogLine { at, stream, bytes: Bytes::from(bytes) }));
        self.done
    }
}

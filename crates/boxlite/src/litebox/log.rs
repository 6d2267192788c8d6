//! The output of a box's main process, line by line.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use boxlite_home::BoxPaths;
use boxlite_types::{Doing, Error, ErrorCause, LogLine, LogOptions, OutputStream, Result};
use boxlite_vm::shim::{MainLog, Record, old_path};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::time;

/// The kept part of a box's log that was asked for.
#[derive(Debug, Default)]
pub(crate) struct LogHistory {
    /// Oldest first.
    pub(crate) lines: Vec<LogLine>,
    /// The last run that was begun; 0 when the log knows of none.
    pub(crate) last_run: u64,
    /// Whether the last run is among the wanted ones.
    pub(crate) has_last: bool,
    /// The position behind the last byte of the last run.
    pub(crate) position: u64,
}

/// Reads what is kept and wanted of the log.
///
/// # Errors
/// `NotFound` for a run that the box has not had or whose output is not kept any more.
pub(crate) fn history(paths: &BoxPaths, options: &LogOptions) -> Result<LogHistory> {
    if options.console {
        return Ok(LogHistory { lines: wanted(console(paths)?, options), ..LogHistory::default() });
    }
    let path = paths.main_log();
    let runs = MainLog::runs(&path)?;
    let last_run = runs.as_ref().map_or(0, |runs| *runs.end());
    let only = options.run.map(|run| choose_run(run, runs)).transpose()?;
    let records = match only {
        Some(run) => MainLog::open_run(&path, run, 0)?,
        None => MainLog::open(&path)?,
    };
    let (mut lines, mut position) = (LineAssembler::default(), 0);
    for record in records {
        let record = record?;
        if record.run == last_run {
            position = record.position + record.bytes.len() as u64;
        }
        lines.add(&record);
    }
    let has_last = only.is_none_or(|run| run == last_run);
    Ok(LogHistory { lines: wanted(lines.finish(), options), last_run, has_last, position })
}

/// Finds the run of that number, or of that number counted back from the last.
fn choose_run(wanted: i64, runs: Option<RangeInclusive<u64>>) -> Result<u64> {
    let Some(runs) = runs else {
        return Err(not_kept("the box has not run yet, or has said nothing"));
    };
    let (first, last) = runs.clone().into_inner();
    let number = if wanted < 0 { last.saturating_add_signed(wanted + 1) } else { wanted.unsigned_abs() };
    if runs.contains(&number) {
        return Ok(number);
    }
    Err(not_kept(format!(
        "run {wanted} is not in the box's log, which has runs {first} to {last}; the oldest go as the log reaches its \
         bound, the setting main_log_max"
    )))
}

fn not_kept(message: impl Into<String>) -> Error {
    Error::not_found(message).about(ErrorCause::LogRun)
}

fn wanted(mut lines: Vec<LogLine>, options: &LogOptions) -> Vec<LogLine> {
    if let Some(since) = options.since {
        lines.retain(|line| line.at >= since);
    }
    if let Some(until) = options.until {
        lines.retain(|line| line.at < until);
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
        lines.extend(pieces.map(|piece| LogLine { run: 0, at, stream, bytes: contents.slice_ref(piece) }));
    }
    Ok(lines)
}

/// Joins the pieces of each stream's lines; a line bears the time of its first piece, and ends with its run.
#[derive(Default)]
struct LineAssembler {
    run: u64,
    done: Vec<LogLine>,
    open: HashMap<OutputStream, (Timestamp, BytesMut)>,
}

impl LineAssembler {
    fn add(&mut self, record: &Record) {
        if record.run != self.run {
            self.end_lines();
            self.run = record.run;
        }
        let stream = OutputStream::from(record.stream);
        let at = time::from_unix_ms(record.at_unix_ms).unwrap_or_default();
        for piece in record.bytes.split_inclusive(|byte| *byte == b'\n') {
            let (begun, bytes) = self.open.entry(stream).or_insert_with(|| (at, BytesMut::new()));
            bytes.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = LogLine { run: record.run, at: *begun, stream, bytes: bytes.split().freeze() };
                self.done.push(line);
                self.open.remove(&stream);
            }
        }
    }

    fn end_lines(&mut self) {
        let run = self.run;
        let rest = self.open.drain();
        self.done.extend(rest.map(|(stream, (at, bytes))| LogLine {
            run,
            at,
            stream,
            bytes: Bytes::from(bytes),
        }));
    }

    fn finish(mut self) -> Vec<LogLine> {
        self.end_lines();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;

    use super::*;

    #[test]
    fn runs_are_counted_from_the_first_and_back_from_the_last() {
        let of = |wanted| choose_run(wanted, Some(3..=7)).map_err(|error| (error.kind(), error.cause()));
        assert_eq!((of(3), of(7), of(-1), of(-5)), (Ok(3), Ok(7), Ok(7), Ok(3)));
        for gone in [0, 1, 8, -6, i64::MIN] {
            assert_eq!(of(gone), Err((ErrorKind::NotFound, Some(ErrorCause::LogRun))), "{gone}");
        }
        assert_eq!(choose_run(1, None).unwrap_err().cause(), Some(ErrorCause::LogRun));
    }
}

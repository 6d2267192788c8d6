//! The log of what has happened in a home: lines of JSON, bounded, without anybody who keeps it open.
//!
//! # Layout
//! `events.jsonl`, and `events.jsonl.old` once that has been full. Neither is synced: after a crash of the host the last events may
//! be missing. A line that cannot be read is left out.
//!
//! # Locking
//! A writer holds the file's lock shared while it appends, and appends only to the file that has the name; whoever sets a full file
//! aside takes the lock exclusively without waiting. So no event is written to a file that readers are done with. A writer waits
//! for that lock for a quarter of a second: a process that hangs with it costs events, and holds up no box.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use boxlite_types::{Doing, Error, ErrorKind, EventOptions, EventPage, EventPosition, HomeEvent, Result};

use crate::Home;
use crate::durable::{self, Lock};

/// Bytes at which the file is set aside: both files together take at most twice that.
const CAP: u64 = 1 << 20;

/// How often a writer looks for the file again that others set aside meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// How long a writer waits for a process that is setting the file aside, which takes microseconds.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// The log of a home.
#[derive(Debug, Clone)]
pub struct EventLog {
    path: PathBuf,
    old: PathBuf,
    cap: u64,
}

impl EventLog {
    /// That of `home`.
    pub fn of(home: &Home) -> Self {
        Self { path: home.events(), old: home.events().with_extension("jsonl.old"), cap: CAP }
    }

    /// Notes an event. One that cannot be written, as on a full disk, is lost: no operation fails because of its event.
    pub fn note(&self, event: &HomeEvent) {
        if let Err(error) = self.append(event) {
            tracing::debug!(error = %error.chain(), action = %event.action, "an event is not noted");
        }
    }

    fn append(&self, event: &HomeEvent) -> Result<()> {
        let mut line = serde_json::to_vec(event)
            .map_err(|error| Error::bug("an event does not serialise").because(error))?;
        line.push(b'\n');
        for _ in 0..MAX_ATTEMPTS {
            let file = durable::open_log(&self.path)?;
            let Some(lock) = Lock::shared_within(file, &self.path, LOCK_TIMEOUT)? else { break };
            if !lock.still_at_path()? {
                continue;
            }
            let mut file = lock.file();
            if !ends_whole(file).doing("reading", &self.path)? {
                line.insert(0, b'\n');
            }
            // In one piece: the file is open for appending.
            file.write_all(&line).doing("writing to", &self.path)?;
            let length = file.metadata().doing("examining", &self.path)?.len();
            lock.release();
            return if length >= self.cap { self.set_aside() } else { Ok(()) };
        }
        Err(Error::new(ErrorKind::Busy, "the log of events is being set aside all the time").at(&self.path))
    }

    /// Makes the full file the old one, unless others are writing to it or have done that.
    fn set_aside(&self) -> Result<()> {
        let file = durable::open_log(&self.path)?;
        let Some(lock) = Lock::try_lock_open(file, &self.path)? else { return Ok(()) };
        let length = lock.file().metadata().doing("examining", &self.path)?.len();
        if length < self.cap || !lock.still_at_path()? {
            return Ok(());
        }
        durable::rotate_log(&self.path, &self.old)
    }

    /// Reads the events that `options` select.
    ///
    /// # Errors
    /// `Io` when a file that is there cannot be read.
    pub fn read(&self, options: &EventOptions) -> Result<EventPage> {
        loop {
            let number = || std::fs::metadata(&self.old).map(|found| found.ino()).ok();
            let before = number();
            let page = self.read_files(options)?;
            // Otherwise a file was set aside in between and has not been read.
            if number() == before {
                return Ok(page);
            }
        }
    }

    fn read_files(&self, options: &EventOptions) -> Result<EventPage> {
        let mut page = EventPage { events: Vec::new(), position: options.after.unwrap_or_default() };
        for path in [&self.old, &self.path] {
            let mut file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("opening", path, error)),
            };
            let metadata = file.metadata().doing("examining", path)?;
            let number = metadata.ino();
            let from = match options.after {
                // Numbers are given again: a shorter file is another one.
                Some(after) if after.file == number && after.offset <= metadata.len() => {
                    // All earlier events were read by then.
                    page.events.clear();
                    after.offset
                }
                _ => 0,
            };
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(from)).doing("reading", path)?;
            file.take(2 * self.cap).read_to_end(&mut text).doing("reading", path)?;
            // A line that is being written is left for the next time.
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let selected = |event: &HomeEvent| {
                options.since.is_none_or(|since| event.at >= since)
                    && options.until.is_none_or(|until| event.at < until)
            };
            page.events.extend(
                lines.filter_map(|line| serde_json::from_slice::<HomeEvent>(line).ok()).filter(selected),
            );
            page.position = EventPosition { file: number, offset: from + whole as u64 };
        }
        Ok(page)
    }
}

/// Whether the file's last line is whole: a full disk may have cut it.
fn ends_whole(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    Ok(file.read_at(&mut byte, last)? == 0 || byte == *b"\n")
}

#[cfg(test)]
mod tests {
    use boxlite_types::EventAction;

    use super::*;

    fn log(directory: &std::path::Path, cap: u64) -> EventLog {
        EventLog { path: directory.join("events.jsonl"), old: directory.join("events.jsonl.old"), cap }
    }

    fn ids(page: &EventPage) -> Vec<&str> {
        page.events.iter().map(|event| event.id.as_str()).collect()
    }

    fn note(log: &EventLog, id: &str) {
        log.note(&HomeEvent::of_box(EventAction::Start, id, None));
    }

    /// Mutation tried: a reader that begins each file anew sees what it had before.
    #[test]
    fn who_follows_sees_each_event_once_however_often_the_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), 400);
        let mut options = EventOptions::default();
        let mut seen = Vec::new();
        for id in 0..40 {
            note(&log, &id.to_string());
            if id % 2 == 1 {
                let page = log.read(&options).unwrap();
                seen.extend(page.events.iter().map(|event| event.id.parse::<u32>().unwrap()));
                options.after = Some(page.position);
            }
        }
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
        let kept: u64 = std::fs::read_dir(directory.path())
            .unwrap()
            .flatten()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(kept < 2 * (400 + 200), "it is bounded: {kept}");
    }

    #[test]
    fn times_select_and_damage_hides_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAP);
        assert_eq!(log.read(&EventOptions::default()).unwrap(), EventPage::default());
        note(&log, "a");
        std::fs::OpenOptions::new().append(true).open(&log.path).unwrap().write_all(b"nonsense\n").unwrap();
        note(&log, "b");
        let page = log.read(&EventOptions::default()).unwrap();
        assert_eq!(ids(&page), ["a", "b"]);
        let (first, second) = (page.events[0].at, page.events[1].at);
        let since = EventOptions { since: Some(second), ..EventOptions::default() };
        assert_eq!(ids(&log.read(&since).unwrap()), ["b"]);
        let until = EventOptions { since: Some(first), until: Some(second), ..EventOptions::default() };
        assert_eq!(ids(&log.read(&until).unwrap()), ["a"]);
        // A piece of a line is left for later.
        std::fs::OpenOptions::new().append(true).open(&log.path).unwrap().write_all(b"{").unwrap();
        let after = EventOptions { after: Some(page.position), ..EventOptions::default() };
        let rest = log.read(&after).unwrap();
        assert_eq!((rest.events.len(), rest.position), (0, page.position));
        // One that stays cut takes no other with it.
        note(&log, "c");
        assert_eq!(ids(&log.read(&after).unwrap()), ["c"]);
        assert_eq!(ids(&log.read(&EventOptions::default()).unwrap()), ["a", "b", "c"]);
        // A position behind the end is another file's.
        let number = std::fs::metadata(&log.path).unwrap().ino();
        let unknown = Some(EventPosition { file: number, offset: 1 << 20 });
        let all = log.read(&EventOptions { after: unknown, ..EventOptions::default() }).unwrap();
        assert_eq!(ids(&all), ["a", "b", "c"]);
    }

    /// A writer that waits for the lock never returns here.
    #[test]
    fn a_process_that_hangs_while_it_sets_the_file_aside_holds_up_no_writer() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), CAP);
        note(&log, "before");
        let hanging = Lock::exclusive(&log.path).unwrap();
        let (told, when_noted) = std::sync::mpsc::channel();
        let writer = log.clone();
        std::thread::spawn(move || {
            note(&writer, "lost");
            told.send(()).unwrap();
        });
        when_noted.recv_timeout(Duration::from_secs(60)).expect("the writer gives up");
        hanging.release();
        note(&log, "after");
        assert_eq!(ids(&log.read(&EventOptions::default()).unwrap()), ["before", "after"]);
    }

    #[test]
    fn writers_beside_each_other_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path(), 1 << 20);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || (0..100).for_each(|n| note(log, &format!("{writer}-{n}"))));
            }
        });
        assert_eq!(log.read(&EventOptions::default()).unwrap().events.len(), 400);
    }
}

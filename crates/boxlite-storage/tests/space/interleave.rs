//! Each point at which a start and gc can meet, held open by a FIFO while the other one runs.

use std::fs::OpenOptions;
use std::path::PathBuf;

use boxlite_home::Home;
use boxlite_home::durable::Staged;
use boxlite_types::GcOptions;
use boxlite_types::gc::{Fate, Skip};

use crate::place::{self, collect, digest, is_live, put_image, spawn, start};

struct Meeting {
    _directory: tempfile::TempDir,
    home: Home,
    fifo: PathBuf,
}

impl Meeting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = place::open(&directory.path().join("home"));
        let fifo = directory.path().join("fifo");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RWXU, 0).unwrap();
        put_image(&home, 1);
        Self { _directory: directory, home, fifo }
    }

    /// Runs `job` in a child up to `point`, then `meanwhile`, then lets the child go on to a good end.
    fn pause<T>(&self, job: &str, point: &str, meanwhile: impl FnOnce() -> T) -> T {
        let child = spawn(&self.home, job, &format!("{point}=wait:{}", self.fifo.display()));
        // Returns when the child has opened the other end: it is at the point.
        let hold = OpenOptions::new().write(true).open(&self.fifo).unwrap();
        let result = meanwhile();
        drop(hold);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{job} paused at {point}: {stderr}");
        result
    }

    fn gc_in_the_meantime(&self) -> Fate {
        let report = collect(&self.home, &GcOptions::default());
        assert!(!report.failed(), "{report:?}");
        report.disk_images.iter().find(|item| item.name.starts_with(&digest(1))).unwrap().fate.clone()
    }
}

#[test]
fn a_start_that_opened_but_not_locked_finds_the_image_gone_and_builds_it_again() {
    let meeting = Meeting::new();
    let fate = meeting.pause("start b 1", "lease.opened", || meeting.gc_in_the_meantime());
    assert!(matches!(fate, Fate::Removed { .. }), "{fate:?}");
    assert!(is_live(&meeting.home, 1));
    place::assert_whole(&meeting.home);
}

#[test]
fn from_the_lock_on_the_image_stays() {
    for point in ["lease.locked", "publish.written", "publish.synced", "publish.renamed", "publish.durable"] {
        let meeting = Meeting::new();
        let fate = meeting.pause("start b 1", point, || meeting.gc_in_the_meantime());
        match fate {
            Fate::Skipped { why: Skip::InUse } | Fate::Kept { .. } => {}
            other => panic!("{point}: {other:?}"),
        }
        assert!(is_live(&meeting.home, 1), "{point}");
        assert!(matches!(meeting.gc_in_the_meantime(), Fate::Kept { .. }));
    }
}

/// The start begins and ends between gc's first mark and its lock: only the second mark can see it.
/// Mutation tried: `judge_again` without the second census; the image went.
#[test]
fn a_start_between_mark_and_lock_is_seen_by_the_second_mark() {
    let meeting = Meeting::new();
    meeting.pause("gc", "gc.planned", || start(&meeting.home, "b", 1));
    assert!(is_live(&meeting.home, 1));
    place::assert_whole(&meeting.home);
}

/// With gc's lock held the start waits, finds the image gone, and makes it anew.
/// Mutations tried: no `still_at_path` in the lease; gc letting go of its lock between mark and rename.
#[test]
fn a_start_that_meets_gcs_lock_waits_and_builds_again() {
    for point in ["gc.locked", "gc.marked", "discard.start", "discard.renamed"] {
        let meeting = Meeting::new();
        std::thread::scope(|scope| {
            let starting = meeting.pause("gc", point, || {
                let starting = scope.spawn(|| start(&meeting.home, "b", 1));
                if point != "discard.renamed" {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    assert!(!starting.is_finished(), "{point}: the start did not wait for gc's lock");
                }
                starting
            });
            starting.join().unwrap();
        });
        assert!(is_live(&meeting.home, 1), "{point}");
        place::assert_whole(&meeting.home);
    }
}

#[test]
fn two_passes_at_once_remove_each_thing_once() {
    for point in ["gc.planned", "gc.locked", "gc.marked", "discard.start", "discard.renamed"] {
        let meeting = Meeting::new();
        put_image(&meeting.home, 2);
        meeting.pause("gc", point, || {
            let report = collect(&meeting.home, &GcOptions::default());
            assert!(!report.failed(), "{point}: {report:?}");
        });
        assert_eq!(place::images(&meeting.home), 0);
        assert_eq!(collect(&meeting.home, &GcOptions::default()).reclaimed, 0, "{point}");
    }
}

/// The unlink of a large unfinished file takes seconds, in which its next maker must not find it locked.
/// Mutation tried: unlinking under the lock; the file could not be taken over.
#[test]
fn an_unfinished_file_that_is_being_unlinked_can_be_made_anew() {
    let meeting = Meeting::new();
    let tmp = meeting.home.tmp();
    std::fs::write(tmp.join("dead.partial"), b"unfinished").unwrap();
    let taken = meeting.pause("gc", "sweep.unlinking", || Staged::take_over(&tmp, "dead.partial").unwrap());
    let taken = taken.expect("the sweep holds its lock");
    assert_eq!(taken.file().metadata().unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 1);
}

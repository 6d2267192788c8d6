//! What a program printed and how it ended.

use std::io::Read;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for an emulated boot on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Output {
    /// Collects what `child` prints until it ends; one that takes too long is killed and fails the test.
    pub(crate) fn of(child: Child) -> Self {
        Self::within(child, PATIENCE)
    }

    /// The same with another limit.
    pub(crate) fn within(mut child: Child, limit: Duration) -> Self {
        let (done, waiting) = mpsc::channel();
        let pid = rustix::process::Pid::from_child(&child);
        thread::spawn(move || {
            if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("killing {pid:?}, which takes too long");
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read_err = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut out = Vec::new();
        stdout.map(|mut pipe| pipe.read_to_end(&mut out));
        let status = child.wait().expect("waiting for a child");
        let _ = done.send(());
        Self { status, out, err: read_err.join().expect("reading standard error") }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The text it printed; fails the test unless it ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code(), Some(0), "{self:?}");
        self.text()
    }

    /// What it complained; fails the test unless boxlite itself failed and said `part` and, if anything, a hint.
    #[track_caller]
    pub(crate) fn refused(self, part: &str) -> String {
        assert_eq!(self.code(), Some(125), "{self:?}");
        assert!(self.err.starts_with("boxlite: "), "{self:?}");
        assert!(self.err.contains(part), "{part:?} is not said: {self:?}");
        self.err
    }

    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Fails the test unless the complaint says what to do.
#[track_caller]
pub(crate) fn hinted(error: &str) {
    assert!(error.contains("\nhint: "), "no hint: {error}");
}

/// Tries until `probe` has an answer; there is no event to wait for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

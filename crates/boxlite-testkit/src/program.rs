//! Running programs: what they printed, how they ended, and a limit in time.

use std::io::Read;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::deadline::TEST_TIMEOUT;

/// The output and status of a program that has ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Collects what `child` prints until it ends; one that takes longer than [`TEST_TIMEOUT`] is killed.
    pub fn of(child: Child) -> Self {
        Self::within(child, TEST_TIMEOUT)
    }

    /// Collects what `child` prints until it ends; one that takes longer than `limit` is killed.
    pub fn within(mut child: Child, limit: Duration) -> Self {
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

    /// Returns standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Returns the exit code, unless a signal ended the program.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns standard output as text; fails the test unless the program ended with 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code(), Some(0), "{self:?}");
        self.text()
    }

    /// Returns standard error; fails the test unless boxlite itself failed and said `part` and, if anything, a hint.
    #[track_caller]
    pub fn refused(self, part: &str) -> String {
        self.failed_with(125, part)
    }

    /// Returns standard error; fails the test unless boxlite refused for lack of room and said `part`.
    #[track_caller]
    pub fn lacks_room(self, part: &str) -> String {
        self.failed_with(75, part)
    }

    #[track_caller]
    fn failed_with(self, code: i32, part: &str) -> String {
        assert_eq!(self.code(), Some(code), "{self:?}");
        assert!(self.err.starts_with("boxlite: "), "{self:?}");
        assert!(self.err.contains(part), "{part:?} is not said: {self:?}");
        self.err
    }

    /// Returns standard output as JSON; fails the test unless the program ended with 0.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Fails the test unless the complaint says what to do.
#[track_caller]
pub fn hinted(error: &str) {
    assert!(error.contains("\nhint: "), "no hint: {error}");
}

/// Runs `command` and returns its standard output; fails the test unless it ends with 0.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns `length` bytes that neither compress nor repeat, the same at each call.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::Output;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        // More than a pipe holds on each, so that reading one after the other would stall.
        let output = Output::of(shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; exit 7"));
        assert_eq!((output.code(), output.out.len(), output.err.len()), (Some(7), 300_000, 300_000));
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        assert_eq!(Output::within(shell("exec sleep 1000"), Duration::from_millis(50)).code(), None);
    }
}

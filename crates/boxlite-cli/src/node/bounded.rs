//! Programs that are given up after a while.
//!
//! A process that waits for a filesystem that does not answer may not even die: the kernel lets none of its threads go
//! before the wait ends, and whoever waits for the process waits too. So whatever touches a home is done in a process of its
//! own, and this one holds nothing of it but pipes.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Notify;

/// Bytes of output that are read of a program; the rest is dropped.
const MAX_OUTPUT: u64 = 1 << 20;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProgramEnd {
    /// With this exit status; 128 + n for signal n.
    Exited(i32),
    /// It had not ended in time, was killed, and is not waited for.
    GivenUp,
}

/// How a program ended, and its output until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramOutput {
    pub(crate) end: ProgramEnd,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProgramOutput {
    /// Returns the output of a program that succeeded.
    ///
    /// # Errors
    /// A sentence on why it did not.
    pub(crate) fn success(self, name: &str) -> Result<String, String> {
        match self.end {
            ProgramEnd::Exited(0) => Ok(self.stdout),
            ProgramEnd::Exited(status) => {
                Err(format!("{name} failed with status {status}: {}", last_line(&self.stderr)))
            }
            ProgramEnd::GivenUp => Err(format!("{name} did not end in time")),
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
}

/// How long a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProgramLimit {
    /// From its start to its end.
    pub(crate) whole: Duration,
    /// From its first line of output to its end.
    pub(crate) after_first_line: Duration,
}

impl ProgramLimit {
    /// So long from start to end, whenever it writes.
    pub(crate) fn of(whole: Duration) -> Self {
        Self { whole, after_first_line: whole }
    }
}

/// Runs `program` for as long as `limit` says at most.
///
/// # Errors
/// A sentence when it cannot be started.
pub(crate) async fn run(
    program: &str,
    arguments: &[OsString],
    limit: ProgramLimit,
) -> Result<ProgramOutput, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (first_line, of_errors) = (Notify::new(), Notify::new());
    let ending = async {
        tokio::join!(read(out, &mut stdout, &first_line), read(err, &mut stderr, &of_errors));
        child.wait().await
    };
    let giving_up = async {
        tokio::select! {
            () = tokio::time::sleep(limit.whole) => {}
            () = async {
                first_line.notified().await;
                tokio::time::sleep(limit.after_first_line).await;
            } => {}
        }
    };
    let ended = tokio::select! {
        ended = ending => Some(ended),
        () = giving_up => None,
    };
    let end = match ended {
        Some(Ok(status)) => ProgramEnd::Exited(boxlite_status(status)),
        Some(Err(error)) => return Err(format!("{program} could not be waited for: {error}")),
        None => {
            let _ = child.start_kill();
            ProgramEnd::GivenUp
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(ProgramOutput { end, stdout: text(&stdout), stderr: text(&stderr) })
}

fn boxlite_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Reads to the end, tells when a line is there, and keeps what came if it is given up.
async fn read(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, first_line: &Notify) {
    let Some(stream) = stream else { return };
    let mut stream = stream.take(MAX_OUTPUT);
    let mut is_told = false;
    while stream.read_buf(into).await.is_ok_and(|count| count > 0) {
        if !is_told && into.contains(&b'\n') {
            first_line.notify_one();
            is_told = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(script: &str, limit: Duration) -> ProgramOutput {
        let limit = ProgramLimit::of(limit);
        run("/bin/sh", &["-c".into(), script.into()], limit).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_given_up_and_what_it_wrote_is_kept() {
        let began = Instant::now();
        let output = shell("echo first; exec sleep 1000", Duration::from_millis(300)).await;
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!((output.end.clone(), output.stdout.as_str()), (ProgramEnd::GivenUp, "first\n"));
        assert_eq!(output.success("sh").unwrap_err(), "sh did not end in time");
    }

    #[tokio::test]
    async fn a_program_that_has_said_what_is_wanted_is_given_up_sooner() {
        let limit =
            ProgramLimit { whole: Duration::from_secs(1000), after_first_line: Duration::from_millis(100) };
        let script = "printf half; sleep 1; echo; exec sleep 1000";
        let output = run("/bin/sh", &["-c".into(), script.into()], limit).await.unwrap();
        assert_eq!((output.end, output.stdout.as_str()), (ProgramEnd::GivenUp, "half\n"));
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_last_words() {
        let output = shell("echo why >&2; exit 3", Duration::from_secs(60)).await;
        assert_eq!(output.success("sh").unwrap_err(), "sh failed with status 3: why");
        let killed = shell("kill -9 $$", Duration::from_secs(60)).await;
        assert_eq!(killed.end, ProgramEnd::Exited(137));
        assert_eq!(shell("echo fine", Duration::from_secs(60)).await.success("sh").unwrap(), "fine\n");
        let limit = ProgramLimit::of(Duration::from_secs(1));
        assert!(run("/no/such/program", &[], limit).await.is_err());
    }
}

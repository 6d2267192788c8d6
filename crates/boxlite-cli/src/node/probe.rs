//! The figures of a node, from a process that is given up where the home's filesystem does not answer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use boxlite::{NodeCheck, Verdict};

use super::bounded::{self, ProgramEnd, ProgramLimit, ProgramOutput};

/// This very program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The time for what gc could free, once all else is known: in a home of 1,000 boxes it takes a fifth of that.
const RECLAIMABLE_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs commands of this program in processes of their own.
#[derive(Debug, Clone)]
pub(crate) struct OwnProgram {
    home: Option<PathBuf>,
}

impl OwnProgram {
    /// Commands on `home`; without one, they say that none is named.
    pub(crate) fn on(home: Option<PathBuf>) -> Self {
        Self { home }
    }

    /// Runs the command line `words` for `limit` at most.
    ///
    /// # Errors
    /// A sentence when it cannot be started.
    pub(crate) async fn run(&self, words: &[&str], limit: Duration) -> Result<ProgramOutput, String> {
        self.run_within(words, ProgramLimit::of(limit)).await
    }

    async fn run_within(&self, words: &[&str], limit: ProgramLimit) -> Result<ProgramOutput, String> {
        let home = self.home.iter().flat_map(|home| ["--home".into(), home.clone().into_os_string()]);
        let arguments: Vec<OsString> = home.chain(words.iter().map(Into::into)).collect();
        bounded::run(OWN_PROGRAM, &arguments, limit).await
    }

    /// Checks the node for `limit` at most; a home that does not answer is [`Verdict::Reject`], because a start would hang.
    /// What gc could free is unknown where the database has no answer soon, as while another process writes to it.
    ///
    /// # Errors
    /// A sentence when the home could be reached, but not be checked: there is none, for example.
    pub(crate) async fn check(&self, limit: Duration) -> Result<NodeCheck, String> {
        let limits = ProgramLimit { whole: limit, after_first_line: RECLAIMABLE_TIMEOUT };
        let output = self.run_within(&["node", "probe"], limits).await?;
        read(&output, self.home.clone().unwrap_or_default(), limit)
    }
}

/// Makes a verdict of what the probe wrote: one line of figures, then the same with what gc could free.
fn read(output: &ProgramOutput, home: PathBuf, limit: Duration) -> Result<NodeCheck, String> {
    let last = output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back();
    match (last, &output.end) {
        (Some(check), ProgramEnd::Exited(0) | ProgramEnd::GivenUp) => Ok(check),
        (None, ProgramEnd::GivenUp) => Ok(NodeCheck {
            verdict: Verdict::Reject,
            reason: Some(format!("the home's filesystem does not answer within {limit:?}")),
            home,
            space: None,
            memory: None,
            reclaimable: None,
        }),
        (_, ProgramEnd::Exited(_)) => {
            Err(output.clone().success("the check").err().unwrap_or_else(|| "the check said nothing".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(end: ProgramEnd, stdout: &str) -> Result<NodeCheck, String> {
        let output = ProgramOutput { end, stdout: stdout.into(), stderr: "boxlite: no home\n".into() };
        read(&output, "/h".into(), Duration::from_secs(2))
    }

    #[test]
    fn the_last_whole_line_counts_and_silence_is_a_rejection() {
        let first =
            r#"{"verdict":"ok","reason":null,"home":"/h","space":null,"memory":null,"reclaimable":null}"#;
        let second = first.replace(r#""reclaimable":null"#, r#""reclaimable":{"bytes":7,"inodes":1}"#);
        let both = format!("{first}\n{second}\n");
        assert_eq!(read_of(ProgramEnd::Exited(0), &both).unwrap().reclaimable.unwrap().bytes, 7);
        let slow = read_of(ProgramEnd::GivenUp, &format!("{first}\n{}", &second[..20])).unwrap();
        assert_eq!((slow.verdict, slow.reclaimable), (Verdict::Ok, None), "gc's figure may be late");
        let stuck = read_of(ProgramEnd::GivenUp, "").unwrap();
        assert_eq!(stuck.verdict, Verdict::Reject);
        assert_eq!(stuck.reason.unwrap(), "the home's filesystem does not answer within 2s");
        assert!(read_of(ProgramEnd::Exited(125), "").unwrap_err().contains("boxlite: no home"));
        let damaged = read_of(ProgramEnd::Exited(125), &format!("{first}\n"));
        assert!(damaged.unwrap_err().contains("status 125"), "figures do not make a damaged database good");
    }
}

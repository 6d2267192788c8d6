//! A box that writes files, and what it has reported of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use boxlite_testkit::deadline::TEST_TIMEOUT;
use boxlite_testkit::program::Output;
use sha2::{Digest, Sha256};

use crate::host::SmallHost;
use crate::schedule::Audit;

/// Writes $2 files of $3 bytes, named $1-NUMBER, in $4, and reports each with its checksum once it is on the disk.
const WRITE: &str = r#"
mkdir -p "$4" && cd "$4" || exit 1
number=0
while [ $number -lt $2 ]; do
    head -c $3 /dev/urandom >.new && sync .new || { echo full; rm -f .new; exit 0; }
    sum=$(sha256sum <.new) && mv .new $1-$number && sync . || exit 1
    echo "$1-$number ${sum%% *}"
    number=$((number + 1))
done
"#;

const SUMS: &str = r#"cd /data && for file in *; do [ ! -f "$file" ] || sha256sum "$file" || exit 1; done"#;

/// Files that a box keeps from one cycle to the next.
const KEPT_FILES: usize = 12;

/// Checksums of files, by name.
pub(crate) type Sums = BTreeMap<String, String>;

/// A box, and the files that must be whole on its disk from now on.
pub(crate) struct WritingBox {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) reported: Sums,
}

/// A command in a box that writes files.
pub(crate) struct Writer {
    child: Child,
    lines: Receiver<String>,
}

impl WritingBox {
    /// Makes a box and starts it.
    pub(crate) fn run(host: &SmallHost, name: &str, options: &[&str]) -> Self {
        let image = host.image("mini");
        let mut arguments = vec!["run", "-d", "--name", name, "--network", "none", "--memory", "128m"];
        arguments.extend(options);
        arguments.extend([image.as_str(), "sleep", "infinity"]);
        let id = host.boxlite(&arguments).ok().trim().to_owned();
        Self { name: name.to_owned(), id, reported: Sums::new() }
    }

    /// Begins to write `files` files of `bytes` bytes to `directory`.
    pub(crate) fn write(
        &self,
        host: &SmallHost,
        prefix: &str,
        files: u32,
        bytes: u32,
        directory: &str,
    ) -> Writer {
        let (files, bytes) = (files.to_string(), bytes.to_string());
        let arguments = ["exec", &self.name, "sh", "-c", WRITE, "write", prefix, &files, &bytes, directory];
        let mut child = host.command(arguments).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            // A line without its end was cut off with the box, and has reported nothing.
            while output.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                let _ = sender.send(std::mem::take(&mut line));
            }
        });
        Writer { child, lines }
    }

    /// Compares the files of the running box with what it reported; returns how many bytes agree if they were copied.
    pub(crate) fn audit(&self, host: &SmallHost, audit: Audit) -> Result<u64, String> {
        if self.reported.is_empty() {
            return Ok(0);
        }
        let (found, bytes) = match audit {
            Audit::Exec => {
                let output = host.boxlite(&["exec", &self.name, "sh", "-c", SUMS]);
                if output.code() != Some(0) {
                    return Err(format!("{} cannot read its files: {output:?}", self.name));
                }
                let text = output.text();
                let sums = text.lines().filter_map(|line| line.split_once("  "));
                (sums.map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect(), 0)
            }
            Audit::Copy => copied(&host.boxlite(&["cp", &format!("{}:/data", self.name), "-"]))?,
        };
        missing(&self.name, &self.reported, &found).map(|()| bytes)
    }

    /// Removes the oldest files of the box.
    pub(crate) fn prune(&mut self, host: &SmallHost) {
        let mut names: Vec<String> = self.reported.keys().cloned().collect();
        names.truncate(names.len().saturating_sub(KEPT_FILES));
        if names.is_empty() {
            return;
        }
        for name in &names {
            self.reported.remove(name);
        }
        let remove = ["exec", &self.name, "sh", "-c", "cd /data && rm -- \"$@\" && sync .", "remove"];
        host.boxlite(&[&remove[..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat()).ok();
    }
}

/// Fails unless everything that was reported was found as it was reported.
pub(crate) fn missing(what: &str, reported: &Sums, found: &Sums) -> Result<(), String> {
    for (name, sum) in reported {
        match found.get(name) {
            Some(other) if other == sum => {}
            Some(other) => return Err(format!("{what}: {name} was reported as {sum} and is {other}")),
            None => return Err(format!("{what}: {name} was reported and is gone; there are {found:?}")),
        }
    }
    Ok(())
}

/// The checksums of a tar stream's files, and how many bytes they hold.
fn copied(output: &Output) -> Result<(Sums, u64), String> {
    if output.code() != Some(0) {
        return Err(format!("a copy failed: {}", output.err));
    }
    let (mut sums, mut bytes) = (Sums::new(), 0);
    let mut archive = tar::Archive::new(&output.out[..]);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let path = entry.path().map_err(|error| error.to_string())?;
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let mut contents = Vec::new();
        bytes += entry.read_to_end(&mut contents).map_err(|error| error.to_string())? as u64;
        sums.insert(name, hex::encode(Sha256::digest(contents)));
    }
    Ok((sums, bytes))
}

impl Writer {
    /// Waits for the first report, unless the command ends without one, and notes it.
    pub(crate) fn begin(&self, reported: &mut Sums) {
        match self.lines.recv_timeout(TEST_TIMEOUT) {
            Ok(line) => note(&line, reported),
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => panic!("nothing was reported within {TEST_TIMEOUT:?}"),
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the command's end, and notes what it has reported; returns its exit code and what it complained of.
    pub(crate) fn finish(self, reported: &mut Sums, limit: Duration) -> Output {
        let output = Output::within(self.child, limit);
        while let Ok(line) = self.lines.recv_timeout(TEST_TIMEOUT) {
            note(&line, reported);
        }
        output
    }
}

fn note(line: &str, reported: &mut Sums) {
    if let Some((name, sum)) = line.trim_end().split_once(' ') {
        reported.insert(name.to_owned(), sum.to_owned());
    }
}

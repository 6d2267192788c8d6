//! The arguments of a new process, which `run`, `create` and `exec` share.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::environment::Environment;
use crate::report::CommandFailure;

/// The variables of the host, of which some are passed on.
pub(crate) trait HostVariables {
    /// Returns the value of a variable.
    fn value(&self, name: &str) -> Option<String>;

    /// Returns the names that begin with `prefix`, in their order.
    fn names(&self, prefix: &str) -> Vec<String>;
}

impl HostVariables for Environment {
    fn value(&self, name: &str) -> Option<String> {
        self.text(name)
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        Environment::names(self, prefix)
    }
}

/// Streams, environment, directory and user of a process.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Connect the process's standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value, pass the host's on, and of PREFIX* all that begin so
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory in the box
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User that the process runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
}

impl ProcessArgs {
    /// Returns the environment as `NAME=value`; `host` looks up the host's.
    pub(crate) fn environment(&self, host: &impl HostVariables) -> Result<Vec<String>, CommandFailure> {
        environment(&self.env_file, &self.env, host)
    }
}

/// Returns the entries of options as `NAME=value`; `host` looks up the host's environment.
pub(crate) fn variables(
    options: &[String],
    host: &impl HostVariables,
) -> Result<Vec<String>, CommandFailure> {
    environment(&[], options, host)
}

/// Returns all entries as `NAME=value`: first those of the files, then those of the options. Later entries win.
///
/// An entry without `=` takes its value from `host`, and is dropped where that has none.
fn environment(
    files: &[PathBuf],
    options: &[String],
    host: &impl HostVariables,
) -> Result<Vec<String>, CommandFailure> {
    let mut entries = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            CommandFailure::local(format!("reading the environment file {} failed: {error}", file.display()))
        })?;
        entries.extend(parse_file(&text, file, host)?);
    }
    for option in options {
        entries
            .extend(entry(option, host).map_err(|why| CommandFailure::local(format!("-e {option}: {why}")))?);
    }
    Ok(entries)
}

fn parse_file(text: &str, file: &Path, host: &impl HostVariables) -> Result<Vec<String>, CommandFailure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = entry(line, host)
            .map_err(|why| CommandFailure::local(format!("{} line {}: {why}", file.display(), index + 1)))?;
        entries.extend(parsed);
    }
    Ok(entries)
}

fn entry(text: &str, host: &impl HostVariables) -> Result<Vec<String>, String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if name.is_empty() {
        return Err(format!("`{text}` has no name before its `=`"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("the name `{name}` contains white space"));
    }
    if text.contains('\0') {
        return Err("an entry contains a NUL byte".to_owned());
    }
    if text.contains('=') {
        return Ok(vec![text.to_owned()]);
    }
    let names = match name.strip_suffix('*') {
        Some(prefix) => host.names(prefix),
        None => vec![name.to_owned()],
    };
    let pass_on = |name: String| Some(format!("{name}={}", host.value(&name)?));
    Ok(names.into_iter().filter_map(pass_on).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with two variables.
    struct Host;

    impl HostVariables for Host {
        fn value(&self, name: &str) -> Option<String> {
            ["FROM_HOST", "FROM_JOB"].contains(&name).then(|| "there".to_owned())
        }

        fn names(&self, prefix: &str) -> Vec<String> {
            let names = ["FROM_HOST", "FROM_JOB"].into_iter();
            names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
        }
    }

    fn parse(text: &str) -> Result<Vec<String>, String> {
        parse_file(text, Path::new("f.env"), &Host).map_err(|failure| failure.to_string())
    }

    #[test]
    fn files_hold_entries_comments_and_names_of_the_host() {
        let text =
            "\u{feff}# comment\n\nA=1\n  B=two words # kept \nEMPTY=\nFROM_HOST\nNOT_THERE\nEQ=a=b\r\n";
        assert_eq!(
            parse(text).unwrap(),
            ["A=1", "B=two words # kept ", "EMPTY=", "FROM_HOST=there", "EQ=a=b"]
        );
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(parse("A=1\n=x\n").unwrap_err(), "f.env line 2: `=x` has no name before its `=`");
        assert_eq!(parse("A B=x").unwrap_err(), "f.env line 1: the name `A B` contains white space");
    }

    #[test]
    fn a_pattern_passes_all_on_that_begin_so() {
        let passed = |option: &str| variables(&[option.into()], &Host).unwrap();
        assert_eq!(passed("FROM_*"), ["FROM_HOST=there", "FROM_JOB=there"]);
        assert_eq!(passed("OTHER_*"), [""; 0]);
        assert_eq!(passed("FROM_*=x"), ["FROM_*=x"], "a name with a value is a name");
    }

    #[test]
    fn options_follow_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "A=file\n").unwrap();
        let entries =
            environment(&[file.path().to_owned()], &["A=option".into(), "FROM_HOST".into()], &Host).unwrap();
        assert_eq!(entries, ["A=file", "A=option", "FROM_HOST=there"]);
        let missing = environment(&["/no/such/file".into()], &[], &Host).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    }
}

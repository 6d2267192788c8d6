//! Environments from `-e` and `--env-file`.

use std::path::Path;

use crate::report::Failure;

/// All entries as `NAME=value`: the files' first, then the options', of which the later ones count.
///
/// An entry without `=` takes its value from `host`, and is left out where that has none.
pub(crate) fn environment(
    files: &[std::path::PathBuf],
    options: &[String],
    host: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Failure> {
    let mut entries = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::local(format!("reading the environment file {} failed: {error}", file.display()))
        })?;
        entries.extend(parse_file(&text, file, &host)?);
    }
    for option in options {
        entries.extend(entry(option, &host).map_err(|why| Failure::local(format!("-e {option}: {why}")))?);
    }
    Ok(entries)
}

fn parse_file(
    text: &str,
    file: &Path,
    host: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = entry(line, host)
            .map_err(|why| Failure::local(format!("{} line {}: {why}", file.display(), index + 1)))?;
        entries.extend(parsed);
    }
    Ok(entries)
}

fn entry(text: &str, host: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
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
        return Ok(Some(text.to_owned()));
    }
    Ok(host(name).map(|value| format!("{name}={value}")))
}

#[cfg(test)]
mod tests;

//! The servers that `--url` names, and the keys for them.

use std::path::Path;

use boxlite::RemoteOptions;

use crate::report::CommandFailure;

/// The most servers of one front.
const MAX_SERVERS: usize = 256;

/// Reads the key: the file's text without the white space around it.
pub(super) fn key_in(file: &Path) -> Result<String, CommandFailure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        CommandFailure::local(format!("reading the API key {} failed: {error}", file.display()))
    })?;
    match text.trim() {
        "" => Err(CommandFailure::local(format!("the API key file {} is empty", file.display()))),
        key => Ok(key.to_owned()),
    }
}

/// The servers that `text` names: URLs with commas between them, or `@FILE` with one a line; each gets its key.
///
/// # Errors
/// For a list that cannot be read or names nothing.
pub(super) fn servers(text: &str, keys: &ServerKeys) -> Result<Vec<RemoteOptions>, CommandFailure> {
    let urls: Vec<String> = match text.strip_prefix('@') {
        Some(file) => {
            let list = std::fs::read_to_string(file).map_err(|error| {
                CommandFailure::local(format!("reading the list of servers {file} failed: {error}"))
            })?;
            lines(&list).map(str::to_owned).collect()
        }
        None => text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect(),
    };
    if urls.is_empty() || urls.len() > MAX_SERVERS {
        let message = format!("'{text}' names {} servers, and 1 to {MAX_SERVERS} can be asked", urls.len());
        return Err(
            CommandFailure::local(message).hint("--url takes URLs with commas between them, or @FILE")
        );
    }
    Ok(urls.into_iter().map(|url| RemoteOptions { api_key: keys.of(&url), url }).collect())
}

/// The keys for servers.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum ServerKeys {
    None,
    /// The same for all.
    One(String),
    /// URLs without a slash at their end, each with its key.
    ByUrl(Vec<(String, String)>),
}

/// Without the keys.
impl std::fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::One(_) => "One",
            Self::ByUrl(_) => "ByUrl",
        })
    }
}

impl ServerKeys {
    /// Reads a file with one key, or with lines of a URL and the key for it.
    pub(super) fn read(file: &Path) -> Result<Self, CommandFailure> {
        let text = key_in(file)?;
        Self::parse(&text).map_err(|line| {
            let message = format!("line {line} of {} is not a URL and its key", file.display());
            CommandFailure::local(message)
                .hint("the file holds one key for all servers, or a URL and a key on each line")
        })
    }

    /// # Errors
    /// The number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        if !lines(text).any(|line| line.contains("://")) {
            return Ok(Self::One(text.to_owned()));
        }
        let entry = |(at, line): (usize, &str)| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] => None,
            [first, ..] if first.starts_with('#') => None,
            [url, key] if url.contains("://") => Some(Ok((bare(url).to_owned(), key.to_owned()))),
            _ => Some(Err(at + 1)),
        };
        text.lines().enumerate().filter_map(entry).collect::<Result<_, _>>().map(Self::ByUrl)
    }

    fn of(&self, url: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::One(key) => Some(key.clone()),
            Self::ByUrl(all) => all.iter().find(|(known, _)| known == bare(url)).map(|(_, key)| key.clone()),
        }
    }
}

fn bare(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// The lines that are neither empty nor comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        servers(text, &ServerKeys::None).unwrap().into_iter().map(|server| server.url).collect()
    }

    #[test]
    fn servers_are_listed_with_commas_or_in_a_file() {
        assert_eq!(urls("http://a"), ["http://a"]);
        assert_eq!(urls("http://a, https://b/x,"), ["http://a", "https://b/x"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# of the lab\nhttp://a\n\n http://b \r\n").unwrap();
        assert_eq!(urls(&format!("@{}", file.path().display())), ["http://a", "http://b"]);
        assert!(
            servers("@/no/such/list", &ServerKeys::None).unwrap_err().to_string().contains("/no/such/list")
        );
        assert!(servers(",", &ServerKeys::None).is_err());
    }

    #[test]
    fn each_server_gets_its_own_key_and_no_other() {
        let keys = ServerKeys::parse("# keys\nhttp://a/ one\nhttps://b\ttwo\n").unwrap();
        let of = |text: &str| {
            servers(text, &keys).unwrap().into_iter().map(|server| server.api_key).collect::<Vec<_>>()
        };
        assert_eq!(
            of("https://b/,http://a,http://c"),
            [Some("two".to_owned()), Some("one".to_owned()), None]
        );
        assert_eq!(ServerKeys::parse("secret"), Ok(ServerKeys::One("secret".to_owned())));
        assert_eq!(ServerKeys::parse("http://a one\nhttp://b"), Err(2));
        assert_eq!(format!("{keys:?}"), "ByUrl");
    }
}

//! Several keys: a file that names them, holds a hash of each, and limits what their boxes may take.
//!
//! ```toml
//! [ci]
//! hash = "sha256:9f86d0…"     # of the key; `boxlite serve-key` makes both
//! max_boxes = 10              # each limit may be absent
//! max_memory = "8GiB"         # of all boxes together, whether or not they run
//! max_disk = "200GiB"         # of their virtual disks together
//! ```
//!
//! The hash is a plain SHA-256, which protects keys that cannot be guessed: random ones, as `boxlite serve-key` makes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use boxlite::settings::Bytes;
use boxlite::{Digest, Error, Result};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::watched::{self, FileStamp};

/// The longest file of keys that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The longest name of a key.
const MAX_NAME_BYTES: usize = 64;

/// A key that is known by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedKey {
    pub(crate) name: String,
    pub(crate) hash: Digest,
    pub(crate) limits: KeyLimits,
}

/// Limits on all boxes of one key together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    pub(crate) boxes: Option<u64>,
    /// Bytes of guest memory.
    pub(crate) memory: Option<u64>,
    /// Bytes of virtual disks.
    pub(crate) disk: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    hash: String,
    max_boxes: Option<u64>,
    max_memory: Option<String>,
    max_disk: Option<String>,
}

/// The keys of a file, read again when it changes.
#[derive(Debug)]
pub(crate) struct KeysFile {
    path: PathBuf,
    current: Mutex<(Arc<[Arc<NamedKey>]>, FileStamp)>,
}

impl KeysFile {
    /// Reads the file; blocks.
    ///
    /// # Errors
    /// `Denied` when others may read it, `InvalidInput` when it is malformed or two keys are the same.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let stamp = FileStamp::of(path);
        let keys = read(path)?;
        Ok(Self { path: path.to_owned(), current: Mutex::new((keys, stamp)) })
    }

    /// Returns the key with this text, in a time that does not depend on which key a wrong one resembles.
    pub(crate) fn find(&self, brought: &[u8]) -> Option<Arc<NamedKey>> {
        let keys = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).0);
        let hash = Digest::of(brought);
        let mut found = None;
        for key in &*keys {
            if bool::from(key.hash.bytes().ct_eq(hash.bytes())) {
                found = Some(Arc::clone(key));
            }
        }
        found
    }

    /// Tells whether there is a key with that hash.
    pub(crate) fn has(&self, hash: &Digest) -> bool {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).0.iter().any(|key| key.hash == *hash)
    }

    /// Reads the file again if it has changed, and keeps the keys read before when it is unusable; blocks.
    pub(crate) fn refresh(&self) {
        let stamp = FileStamp::of(&self.path);
        if self.current.lock().unwrap_or_else(PoisonError::into_inner).1 == stamp {
            return;
        }
        let keys = read(&self.path);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.1 = stamp;
        match keys {
            Ok(keys) => {
                tracing::info!(path = %self.path.display(), keys = keys.len(), "read the keys again");
                current.0 = keys;
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the keys stay those read before");
            }
        }
    }
}

fn read(path: &Path) -> Result<Arc<[Arc<NamedKey>]>> {
    let reading = |error| Error::io("reading the keys from", path, error);
    watched::refuse_open_to_all(path, "the keys")?;
    let length = std::fs::metadata(path).map_err(reading)?.len();
    if length > MAX_FILE_BYTES {
        let message =
            format!("{} has {length} bytes, and a file of keys at most {MAX_FILE_BYTES}", path.display());
        return Err(Error::invalid(message).at(path));
    }
    let text = std::fs::read_to_string(path).map_err(reading)?;
    parse(&text)
        .map_err(|error| error.while_doing(format!("reading the keys from {}", path.display())).at(path))
}

fn parse(text: &str) -> Result<Arc<[Arc<NamedKey>]>> {
    let entries: BTreeMap<String, KeyEntry> = toml::from_str(text)
        .map_err(|error| Error::invalid(error.to_string().trim_end().replace('\n', " ")))?;
    let keys = entries.into_iter().map(|(name, entry)| entry.named(name).map(Arc::new));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    for (at, key) in keys.iter().enumerate() {
        if let Some(twin) = keys[..at].iter().find(|twin| twin.hash == key.hash) {
            return Err(Error::invalid(format!("{} and {} have the same key", twin.name, key.name)));
        }
    }
    Ok(keys.into())
}

impl KeyEntry {
    fn named(self, name: String) -> Result<NamedKey> {
        check_name(&name)?;
        let of = |field: &str| format!("{field} of key {name}");
        let hash = self.hash.parse::<Digest>().map_err(|error| {
            Error::invalid(format!("{} is not sha256: and 64 lower-case hex digits", of("hash")))
                .because(error)
        })?;
        let size = |field: &str, text: Option<String>| {
            let read = |text: String| {
                text.parse()
                    .map(|Bytes(bytes)| bytes)
                    .map_err(|error| Error::invalid(of(field)).because(error))
            };
            text.map(read).transpose()
        };
        let limits = KeyLimits {
            boxes: self.max_boxes,
            memory: size("max_memory", self.max_memory)?,
            disk: size("max_disk", self.max_disk)?,
        };
        Ok(NamedKey { name, hash, limits })
    }
}

/// Checks the name of a key: letters, digits, `-`, `_` and `.`.
///
/// # Errors
/// `InvalidInput`.
fn check_name(name: &str) -> Result<()> {
    let fit = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fit {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is not a name for a key: up to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`"
    )))
}

/// Returns the entry of the key `key` for a file of keys.
///
/// # Errors
/// `InvalidInput` when the name is not fit for a key.
pub fn key_entry(name: &str, key: &str) -> Result<String> {
    check_name(name)?;
    Ok(format!("[{name:?}]\nhash = \"{}\"\n", Digest::of(key.as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use boxlite::ErrorKind;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_known_by_its_hash_until_the_file_says_otherwise() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("keys.toml");
        let limited =
            format!("{}max_boxes = 3\nmax_memory = \"1.5GiB\"\n", key_entry("ci", "secret-1").unwrap());
        write(&path, &(limited + &key_entry("my.laptop", "secret-2").unwrap()), 0o600);
        let keys = KeysFile::read(&path).unwrap();
        let named = |key: &str| keys.find(key.as_bytes()).map(|key| key.name.clone());
        assert_eq!(
            (named("secret-1").as_deref(), named("secret-2").as_deref()),
            (Some("ci"), Some("my.laptop"))
        );
        assert_eq!((named("secret-"), named("")), (None, None));
        let limits = keys.find(b"secret-1").unwrap().limits;
        assert_eq!(limits, KeyLimits { boxes: Some(3), memory: Some(3 << 29), disk: None });

        let old = keys.find(b"secret-1").unwrap();
        assert!(keys.has(&old.hash));
        write(&path, &key_entry("ci", "secret-3").unwrap(), 0o600);
        keys.refresh();
        assert!(!keys.has(&old.hash), "what it was granted ends");
        assert_eq!((named("secret-1"), named("secret-3").as_deref()), (None, Some("ci")));
        write(&path, "[ci]\n", 0o600);
        keys.refresh();
        assert!(named("secret-3").is_some(), "an unusable file changes nothing");
        write(&path, "", 0o600);
        keys.refresh();
        assert_eq!(named("secret-3"), None);
    }

    #[test]
    fn a_malformed_file_is_an_error_that_says_what_is_wrong() {
        let hash = Digest::of(b"x");
        for (text, part) in [
            ("ci = 1", "ci"),
            ("[ci]", "hash"),
            ("[ci]\nhash = \"x\"", "hash of key ci"),
            (&format!("[ci]\nhash = \"{hash}\"\nmax_box = 1"), "max_box"),
            (&format!("[ci]\nhash = \"{hash}\"\nmax_disk = \"much\""), "max_disk of key ci"),
            (&format!("[\"a b\"]\nhash = \"{hash}\""), "a b"),
            (&format!("[a]\nhash = \"{hash}\"\n[b]\nhash = \"{hash}\""), "a and b have the same key"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.chain().to_string().contains(part), "{text}: {}", error.chain());
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("keys.toml");
        write(&path, "", 0o644);
        assert_eq!(KeysFile::read(&path).unwrap_err().kind(), ErrorKind::Denied);
    }
}

//! The identity of a home: `home.json`, and the same id in the home's database.
//!
//! The database decides to which box each box directory belongs, so the database of another home (a restored backup, a
//! copied file) must not be believed. The id binds the two: a whole home that is copied keeps a matching pair.
//!
//! # Crash safety
//! The database gets its id first, in the transaction that makes or migrates its tables, and `home.json` is published
//! afterwards. So a database with an id beside a missing `home.json` is a first open that was cut short, and a
//! database without an id beside a `home.json` is an older one that was put there.

use std::io::ErrorKind;

use boxlite_types::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::home::Home;

/// The layout of the home that this build writes.
const FORMAT: u32 = 1;

/// The contents of `home.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeIdentity {
    /// 32 lower-case hex digits.
    pub id: String,
    /// Counts up with every change of the layout that older builds must not meet.
    pub format: u32,
    /// Features that a build must know to open this home.
    #[serde(default)]
    pub incompatible_features: Vec<String>,
}

impl HomeIdentity {
    /// The identity of a home that has none yet.
    pub fn new_id() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }

    /// Reads the identity of `home`; `None` where it has none yet.
    ///
    /// # Errors
    /// `Corrupt` when `home.json` cannot be understood, `Unsupported` when a newer boxlite wrote it.
    pub fn read(home: &Home) -> Result<Option<Self>> {
        let path = home.identity();
        let text = match durable::read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("reading the home's identity", &path, error)),
        };
        let found: Self = serde_json::from_str(&text).map_err(|source| {
            let message = format!(
                "{} cannot be read ({source}); restore it, or move it away so that the database's id is used",
                path.display()
            );
            Error::corrupt(message).at(&path).because(source)
        })?;
        if found.format != FORMAT || !found.incompatible_features.is_empty() {
            let message = format!(
                "the home {} has format {} with features '{}', and this boxlite knows format {FORMAT} without any; \
                 use the boxlite that wrote it",
                home.root().display(),
                found.format,
                found.incompatible_features.join(",")
            );
            return Err(Error::unsupported(message).at(&path));
        }
        Ok(Some(found))
    }

    /// Gives `home` the identity `id`, durably.
    pub fn publish(home: &Home, id: &str) -> Result<()> {
        let identity = Self { id: id.to_owned(), format: FORMAT, incompatible_features: Vec::new() };
        let text = serde_json::to_vec(&identity)
            .map_err(|source| Error::bug(format!("an identity cannot be written down: {source}")))?;
        durable::write_atomically(&home.tmp(), &home.identity(), &text)
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;

    use super::*;

    #[test]
    fn an_identity_is_kept_and_one_from_the_future_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home")).unwrap();
        assert_eq!(HomeIdentity::read(&home).unwrap(), None);
        HomeIdentity::publish(&home, "abc").unwrap();
        assert_eq!(HomeIdentity::read(&home).unwrap().unwrap().id, "abc");
        for (text, kind) in [
            (r#"{"id":"a","format":2}"#, ErrorKind::Unsupported),
            (r#"{"id":"a","format":1,"incompatible_features":["x"]}"#, ErrorKind::Unsupported),
            (r#"{"id":"#, ErrorKind::Corrupt),
        ] {
            std::fs::write(home.identity(), text).unwrap();
            assert_eq!(HomeIdentity::read(&home).unwrap_err().kind(), kind, "{text}");
        }
    }

    #[test]
    fn a_mistyped_home_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let typo = dir.path().join("hmoe");
        assert_eq!(Home::open_existing(&typo).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!typo.exists());
        assert_eq!(Home::open_existing(dir.path()).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made in it");
        Home::open(&typo).unwrap();
        Home::open_existing(&typo).unwrap();
    }
}

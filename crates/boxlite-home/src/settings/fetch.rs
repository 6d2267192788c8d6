//! Whose built disk images a home accepts: the settings `image_fetch_from` and `image_fetch_keys`.
//!
//! In the file each is a list of strings; as text, the entries are separated by commas, and no entry is `none`.

use super::size::BadAmount;
use super::value::Value;

const A_PLACE: &str = "repositories as HOST[:PORT][/REPOSITORY], or none";
const A_KEY: &str = "ed25519 public keys in base64, or none";

/// Repositories, and all below them: `registry.example`, `registry.example:5000/team`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FetchPlaces(Vec<String>);

impl FetchPlaces {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `repository` of the registry `host[:port]` is one of them, or below one.
    pub fn contain(&self, host: &str, repository: &str) -> bool {
        let wanted = format!("{}/{repository}", host.to_ascii_lowercase());
        let is_at = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.0.iter().any(|place| wanted.strip_prefix(&**place).is_some_and(is_at))
    }
}

/// Public keys, each as the base64 of its 32 bytes, or of what `openssl pkey -pubout` writes between its two lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FetchKeys(Vec<String>);

impl FetchKeys {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for FetchPlaces {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        listed(text, A_PLACE, |place| {
            let place = place.strip_suffix('/').unwrap_or(place);
            let (host, repository) = place.split_once('/').unwrap_or((place, ""));
            let is_host =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
            let is_path = |byte: u8| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'.' | b'_' | b'-' | b'/')
            };
            let is_whole = repository.is_empty() || repository.split('/').all(|part| !part.is_empty());
            let is_right =
                is_whole && !host.is_empty() && host.bytes().all(is_host) && repository.bytes().all(is_path);
            let lower = || format!("{}{}", host.to_ascii_lowercase(), &place[host.len()..]);
            is_right.then(lower)
        })
        .map(Self)
    }
    fn from_toml(value: &toml::Value) -> Result<Self, BadAmount> {
        Self::from_text(&joined(value, A_PLACE)?)
    }
    fn to_text(&self) -> String {
        shown(&self.0)
    }
}

impl Value for FetchKeys {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        listed(text, A_KEY, |key| {
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
            (matches!(key.len(), 44 | 60) && key.bytes().all(is_base64)).then(|| key.to_owned())
        })
        .map(Self)
    }
    fn from_toml(value: &toml::Value) -> Result<Self, BadAmount> {
        Self::from_text(&joined(value, A_KEY)?)
    }
    fn to_text(&self) -> String {
        shown(&self.0)
    }
}

/// Reads the entries of a list, each by `read`.
fn listed(
    text: &str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, BadAmount> {
    if matches!(text.trim(), "" | "none") {
        return Ok(Vec::new());
    }
    text.split(',').map(|entry| read(entry.trim()).ok_or_else(|| BadAmount::new(entry, expected))).collect()
}

/// A list of the file as text.
fn joined(value: &toml::Value, expected: &'static str) -> Result<String, BadAmount> {
    let wrong = || BadAmount::new(&value.to_string(), expected);
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(",")).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn shown(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_what_is_below_it_and_nothing_else() {
        let places = FetchPlaces::from_text("Registry.example/team, 127.0.0.1:5000/").unwrap();
        assert_eq!(places.to_text(), "registry.example/team,127.0.0.1:5000");
        for (host, repository, expected) in [
            ("registry.example", "team", true),
            ("registry.example", "team/app", true),
            ("registry.example", "teams/app", false),
            ("registry.example", "other", false),
            ("127.0.0.1:5000", "any/thing", true),
            ("127.0.0.1:50001", "any", false),
            ("127.0.0.1", "5000/any", false),
        ] {
            assert_eq!(places.contain(host, repository), expected, "{host} {repository}");
        }
        assert!(!FetchPlaces::default().contain("registry.example", "team"));
        for text in ["/team", "registry.example/Team", "a b", "https://registry.example"] {
            assert!(FetchPlaces::from_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_look_like_keys() {
        let key = format!("{}=", "A".repeat(43));
        let table: toml::Table = format!("k = [\"{key}\"]").parse().unwrap();
        assert_eq!(FetchKeys::from_toml(&table["k"]).unwrap().iter().collect::<Vec<_>>(), [&*key]);
        assert_eq!(FetchKeys::from_text("none").unwrap(), FetchKeys::default());
        for text in ["x", "ssh-ed25519 AAAA", &"A".repeat(45)] {
            assert!(FetchKeys::from_text(text).is_err(), "{text:?}");
        }
    }
}

//! The mirrors of registries, as the setting `registry_mirrors` lists them.
//!
//! In the file it is a table, one list per registry; as text (a variable, `boxlite info`) the lists are separated by
//! semicolons: `docker.io=mirror.example,http://10.0.0.7:5000/hub; ghcr.io=mirror.example`.

use std::collections::BTreeMap;

use super::size::BadAmount;
use super::value::Value;

/// The form of a list of mirrors, for messages.
const FORM: &str = "REGISTRY=MIRROR,…; …, where a mirror is [http://]HOST[:PORT][/PREFIX], or none";
/// The most mirrors of one registry.
const MAX_MIRRORS: usize = 16;
const HUB: &str = "docker.io";

/// A place that is asked for a registry's images before the registry itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mirror {
    /// `HOST[:PORT]`, by which credentials are found.
    pub host: String,
    /// The prefix of a repository's name there, if there is one.
    pub prefix: Option<String>,
    /// It is asked over HTTP, without TLS.
    pub plain: bool,
}

/// The mirrors of each registry, in the order in which they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RegistryMirrors(BTreeMap<String, Vec<Mirror>>);

impl RegistryMirrors {
    /// The mirrors of the registry `host[:port]`, the one to ask first in front.
    pub fn of(&self, registry: &str) -> &[Mirror] {
        self.0.get(&canonical(registry)).map_or(&[], Vec::as_slice)
    }

    fn add<'a>(
        &mut self,
        registry: &str,
        mirrors: impl Iterator<Item = &'a str>,
    ) -> Result<(), &'static str> {
        if !is_host(registry) {
            return Err("a registry as HOST[:PORT] with its mirrors");
        }
        let mut found: Vec<Mirror> = Vec::new();
        for mirror in mirrors.map(Mirror::parse) {
            let mirror = mirror?;
            if found.contains(&mirror) {
                return Err("a list that names each mirror once");
            }
            found.push(mirror);
        }
        if found.is_empty() || found.len() > MAX_MIRRORS {
            return Err("a list of 1 to 16 mirrors");
        }
        match self.0.insert(canonical(registry), found) {
            Some(_) => Err("a list that names each registry once"),
            None => Ok(()),
        }
    }
}

impl Mirror {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let (plain, place) = match text.split_once("://") {
            Some(("http", place)) => (true, place),
            Some(("https", place)) => (false, place),
            Some(_) => return Err("a mirror whose scheme is http or https"),
            None => (false, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, prefix) =
            place.split_once('/').map_or((place, None), |(host, prefix)| (host, Some(prefix)));
        if !is_host(host) {
            return Err("a mirror as [http://]HOST[:PORT][/PREFIX]");
        }
        if !prefix.is_none_or(is_prefix) {
            return Err("a mirror whose prefix has only lower-case letters, digits, '.', '_', '-' and '/'");
        }
        Ok(Self { host: host.to_ascii_lowercase(), prefix: prefix.map(str::to_owned), plain })
    }
}

impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.plain { "http://" } else { "" };
        write!(f, "{scheme}{}", self.host)?;
        self.prefix.iter().try_for_each(|prefix| write!(f, "/{prefix}"))
    }
}

impl Value for RegistryMirrors {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        let mut mirrors = Self::default();
        if matches!(text.trim(), "" | "none") {
            return Ok(mirrors);
        }
        for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (registry, list) = entry.split_once('=').ok_or_else(|| BadAmount::new(entry, FORM))?;
            let added = mirrors.add(registry.trim(), list.split(',').filter(|mirror| !mirror.is_empty()));
            added.map_err(|expected| BadAmount::new(entry, expected))?;
        }
        Ok(mirrors)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, BadAmount> {
        let toml::Value::Table(table) = value else {
            return match value {
                toml::Value::String(text) => Self::from_text(text),
                other => {
                    Err(BadAmount::new(&other.to_string(), "a table with a list of mirrors per registry"))
                }
            };
        };
        let mut mirrors = Self::default();
        for (registry, list) in table {
            let wrong = |why: &'static str| BadAmount::new(&format!("{registry} = {list}"), why);
            let list = list.as_array().map(|list| list.iter().map(toml::Value::as_str).collect());
            let list: Option<Vec<&str>> = list.unwrap_or_default();
            let list = list.ok_or_else(|| wrong("a list of mirrors, each a string"))?;
            mirrors.add(registry, list.into_iter()).map_err(wrong)?;
        }
        Ok(mirrors)
    }

    fn to_text(&self) -> String {
        let list = |mirrors: &[Mirror]| mirrors.iter().map(Mirror::to_string).collect::<Vec<_>>().join(",");
        let entries = self.0.iter().map(|(registry, mirrors)| format!("{registry}={}", list(mirrors)));
        let all: Vec<String> = entries.collect();
        if all.is_empty() { "none".to_owned() } else { all.join("; ") }
    }
}

/// The name of a registry as references have it.
fn canonical(registry: &str) -> String {
    let lower = registry.to_ascii_lowercase();
    if matches!(&*lower, "index.docker.io" | "registry-1.docker.io") { HUB.to_owned() } else { lower }
}

/// Whether the text is `HOST[:PORT]`: without a user, a path or a query.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_named = if let Some(address) = bare {
        address.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        !name.is_empty() && name.bytes().all(is_part)
    };
    is_named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether the text can precede the name of a repository.
fn is_prefix(text: &str) -> bool {
    let is_part = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'/')
    };
    text.len() <= 128
        && text.bytes().all(is_part)
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_read_from_text_and_from_the_file_alike() {
        let text = "docker.io=mirror.example,http://10.0.0.7:5000/hub; ghcr.io:443=[fd00::7]:5000";
        let read = RegistryMirrors::from_text(text).unwrap();
        assert_eq!(read.to_text(), text);
        let table: toml::Table =
            "[m]\n\"index.docker.io\" = [\"https://Mirror.example/\", \"http://10.0.0.7:5000/hub\"]\n\
             \"ghcr.io:443\" = [\"[fd00::7]:5000\"]\n"
                .parse()
                .unwrap();
        assert_eq!(RegistryMirrors::from_toml(&table["m"]).unwrap(), read);
        let hub: Vec<String> = read.of("registry-1.docker.io").iter().map(Mirror::to_string).collect();
        assert_eq!(hub, ["mirror.example", "http://10.0.0.7:5000/hub"]);
        assert_eq!(read.of("ghcr.io"), [], "another port is another registry");
        assert_eq!(RegistryMirrors::from_text("none").unwrap().to_text(), "none");
    }

    #[test]
    fn what_is_no_list_of_mirrors_is_refused() {
        for text in [
            "docker.io",
            "docker.io=",
            "docker.io=ftp://x",
            "docker.io=user:password@mirror.example",
            "docker.io=mirror.example:0",
            "docker.io=mirror.example/UP",
            "docker.io=mirror.example/../x",
            "docker.io=mirror.example//x",
            "docker.io=mirror.example?x",
            "docker.io/library=mirror.example",
            "docker.io=a,a",
            "docker.io=a;index.docker.io=b",
            "=a",
        ] {
            assert!(RegistryMirrors::from_text(text).is_err(), "{text:?} was accepted");
        }
        for file in
            ["m = 1", "m = {\"docker.io\" = \"a\"}", "m = {\"docker.io\" = [1]}", "m = {\"docker.io\" = []}"]
        {
            let table: toml::Table = file.parse().unwrap();
            assert!(RegistryMirrors::from_toml(&table["m"]).is_err(), "{file:?} was accepted");
        }
    }
}

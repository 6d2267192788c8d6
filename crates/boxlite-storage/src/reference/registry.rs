//! References into registries, by Docker's rules.

use std::fmt;

use boxlite_types::{Digest, Error, Result};
use oci_spec::distribution::Reference as Parsed;

const HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// An image in a registry: `[host[:port]/]repository[:tag][@sha256:…]`, with Docker's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl RegistryReference {
    /// Parses what a user wrote.
    ///
    /// # Errors
    /// `InvalidInput`, saying what is wrong with the text; `Unsupported` for a digest that is not SHA-256.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("image reference '{text}' is malformed: {why}"));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest: Digest = digest.parse().map_err(|error: Error| {
                    error.while_doing(format!("image reference '{text}' is malformed"))
                })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        if let Some(why) = complaint(name) {
            return Err(wrong(why));
        }
        let parsed = Parsed::try_from(name).map_err(|error| wrong(&error.to_string()))?;
        let (host, repository) = (parsed.registry(), parsed.repository());
        let (host, repository) = match shouted_host(repository) {
            Some(split) if host == HUB => split,
            _ => (host, repository),
        };
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("a repository name is lower-case"));
        }
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if port.is_some_and(|port| port.is_err()) {
            return Err(wrong("a port is a number below 65536"));
        }
        let written_tag = name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
        let tag = (written_tag || digest.is_none()).then(|| parsed.tag().unwrap_or("latest").to_owned());
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }

    /// The registry as named in references, with its port if one was written: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository within the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which decides over the tag where both are given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The image of that manifest digest in the same repository.
    #[must_use]
    pub(crate) fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same image as a mirror of its registry has it, whose repositories' names begin with `prefix`.
    #[must_use]
    pub(crate) fn at_mirror(&self, host: &str, prefix: Option<&str>) -> Self {
        let below = |prefix| format!("{prefix}/{}", self.repository);
        let repository = prefix.map_or_else(|| self.repository.clone(), below);
        Self { host: host.to_owned(), repository, ..self.clone() }
    }

    /// The canonical form without Docker Hub's host and its `library/`.
    pub fn familiar(&self) -> String {
        let mut short = self.clone();
        if short.host == HUB {
            short.host.clear();
            if let Some(name) = short.repository.strip_prefix(OFFICIAL)
                && !name.contains('/')
            {
                short.repository = name.to_owned();
            }
        }
        short.to_string()
    }
}

impl fmt::Display for RegistryReference {
    /// A digest makes the tag meaningless, so that the canonical form leaves the tag out then.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.host.is_empty() {
            write!(f, "{}/", self.host)?;
        }
        f.write_str(&self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// Docker takes a first component with upper-case letters for a host, since no repository has any.
fn shouted_host(repository: &str) -> Option<(&str, &str)> {
    let (first, rest) = repository.split_once('/')?;
    first.bytes().any(|byte| byte.is_ascii_uppercase()).then_some((first, rest))
}

/// Why `name` cannot be a reference, for the mistakes that people make.
fn complaint(name: &str) -> Option<&'static str> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let (repository, tag) = match last.split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.contains("://") {
        return Some("leave the scheme (https://) out");
    }
    if name.chars().any(char::is_whitespace) {
        return Some("it contains white space");
    }
    if repository.len() > 255 {
        return Some("a repository name has at most 255 characters");
    }
    if repository.starts_with('/') || repository.ends_with('/') || repository.contains("//") {
        return Some("a component between slashes is empty");
    }
    if repository.len() == 64 && repository.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some("64 hex digits name an image by its digest, not a repository");
    }
    let tag_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    match tag {
        Some("") => Some("the tag after the colon is empty"),
        Some(tag) if tag.len() > 128 => Some("a tag has at most 128 characters"),
        Some(tag) if !tag.bytes().all(tag_byte) || tag.starts_with(['.', '-']) => {
            Some("a tag is made of letters, digits, '_', '.' and '-', and begins with neither '.' nor '-'")
        }
        _ => {
            let path = repository.split_once('/').map_or(repository, |(_, path)| path);
            let upper = path.bytes().any(|byte| byte.is_ascii_uppercase());
            upper.then_some("a repository name is lower-case")
        }
    }
}

//! The kinds of values that a setting can have: how each is read from text and TOML, and printed.

use std::str::FromStr;
use std::time::Duration;

use super::size::{BadAmount, Bytes, format_duration, parse_duration};

/// A value that a setting can have.
pub(super) trait Value: Sized {
    /// Reads it from an environment variable or a quoted string in the file.
    fn from_text(text: &str) -> Result<Self, BadAmount>;
    /// Reads it from an unquoted integer in the file.
    fn from_integer(integer: i64) -> Result<Self, BadAmount> {
        Self::from_text(&integer.to_string())
    }
    /// Prints it for people; reads back through [`Value::from_text`].
    fn to_text(&self) -> String;
    /// Reads it from the file.
    fn from_toml(value: &toml::Value) -> Result<Self, BadAmount> {
        match value {
            toml::Value::String(text) => Self::from_text(text),
            toml::Value::Integer(integer) => Self::from_integer(*integer),
            toml::Value::Boolean(switch) => Self::from_text(if *switch { "true" } else { "false" }),
            other => Err(BadAmount::new(&other.to_string(), "a string, an integer or a boolean")),
        }
    }
}

impl Value for Bytes {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        text.parse()
    }
    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        text.trim().parse().map_err(|_| BadAmount::new(text, "a whole number, 0 or more"))
    }
    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A share of a filesystem, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Percent(pub u8);

impl Value for Percent {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        match percentage(text) {
            Some(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err(BadAmount::new(text, "a percentage from 0 to 100")),
        }
    }
    fn to_text(&self) -> String {
        format!("{}%", self.0)
    }
}

/// The number before a percent sign, which may be left out.
fn percentage<N: FromStr>(text: &str) -> Option<N> {
    text.trim().trim_end_matches('%').trim_end().parse().ok()
}

/// A share of the host's memory in percent, 1 to 1000: more than 100 promises more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct HostShare(pub u16);

impl Value for HostShare {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        match percentage(text) {
            Some(percent @ 1..=1000) => Ok(Self(percent)),
            _ => Err(BadAmount::new(text, "a percentage from 1 to 1000")),
        }
    }
    fn to_text(&self) -> String {
        format!("{}%", self.0)
    }
}

impl Value for Duration {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        parse_duration(text)
    }
    fn to_text(&self) -> String {
        format_duration(*self)
    }
}

/// A bound in bytes, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SizeLimit(pub Option<u64>);

impl Value for SizeLimit {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        match text.parse::<Bytes>() {
            Ok(Bytes(bytes @ 1..)) => Ok(Self(Some(bytes))),
            _ => Err(BadAmount::new(text, "a size above 0, such as 2g, or off")),
        }
    }
    fn to_text(&self) -> String {
        self.0.map_or_else(|| "off".into(), |bytes| Bytes(bytes).to_string())
    }
}

/// Whether blobs of layers stay once an image's disk image is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepBlobs {
    /// Until space is short and the image's registry says that it still has them.
    Auto,
    /// As long as the image.
    Always,
    /// Not where the image came from a registry.
    Never,
}

impl Value for KeepBlobs {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(BadAmount::new(text, "auto, always or never")),
        }
    }
    fn to_text(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
        .to_owned()
    }
}

impl Value for bool {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        match text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" => Ok(true),
            "0" | "false" | "off" | "no" => Ok(false),
            _ => Err(BadAmount::new(text, "on or off")),
        }
    }
    fn to_text(&self) -> String {
        if *self { "on" } else { "off" }.to_owned()
    }
}

/// The kernel of guests that is not boxlite's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KernelPath(pub Option<std::path::PathBuf>);

impl Value for KernelPath {
    fn from_text(text: &str) -> Result<Self, BadAmount> {
        match text {
            "" | "own" => Ok(Self(None)),
            path if path.starts_with('/') => Ok(Self(Some(path.into()))),
            _ => Err(BadAmount::new(text, "an absolute path, or own")),
        }
    }
    fn to_text(&self) -> String {
        self.0.as_ref().map_or_else(|| "own".to_owned(), |path| path.display().to_string())
    }
}

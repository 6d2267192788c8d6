//! Why a jail could not be built.

use std::fmt;
use std::io;

/// A jail that could not be built, or a program that could not be started in it.
///
/// There is no half of a jail: whatever was made of it is gone when this is returned.
#[derive(Debug)]
pub struct JailError {
    message: String,
    source: Option<io::Error>,
}

/// A result of this crate.
pub type JailResult<T, E = JailError> = std::result::Result<T, E>;

impl JailError {
    /// An error that says `message` and nothing more.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

impl fmt::Display for JailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for JailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Says what failed.
pub(crate) trait JailDoing<T> {
    /// Turns an error into "`doing` failed: …".
    fn doing(self, doing: impl fmt::Display) -> JailResult<T>;
}

impl<T, E: Into<io::Error>> JailDoing<T> for Result<T, E> {
    fn doing(self, doing: impl fmt::Display) -> JailResult<T> {
        self.map_err(|error| JailError { message: format!("{doing} failed"), source: Some(error.into()) })
    }
}

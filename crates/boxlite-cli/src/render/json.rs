//! JSON for programs.

use serde::Serialize;

use crate::report::Failure;

/// One indented JSON document with a line's end.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::local(format!("writing JSON failed: {error}")))
}

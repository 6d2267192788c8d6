//! Names of machines, as protocols write them.

/// The longest name as text, without a dot at its end.
pub(super) const MAX_NAME: usize = 253;

/// The name in lower case and without a dot at its end; `None` when it is made of other letters than names are.
pub(super) fn name_of(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_name = (1..=MAX_NAME).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    is_name.then(|| bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

//! The form of the ids that boxlite makes up: of boxes, bases, and unfinished files and directories.

/// Whether the text is an id: 32 lower-case hex digits. Only boxlite makes box directories of such a name.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_made_up_is_an_id() {
        assert!(is_id(&uuid::Uuid::new_v4().simple().to_string()) && is_id(&"0".repeat(32)));
        for other in ["", "web", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &"A".repeat(32)] {
            assert!(!is_id(other), "{other}");
        }
    }
}

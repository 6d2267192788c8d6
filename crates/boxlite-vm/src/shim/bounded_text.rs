//! Text that others chose, of a bounded length.

/// Cuts `text` to at most `most` bytes, at the end of a character; returns whether something was cut off.
pub(super) fn cut(text: &mut String, most: usize) -> bool {
    let is_longer = text.len() > most;
    if is_longer {
        text.truncate((0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default());
    }
    is_longer
}

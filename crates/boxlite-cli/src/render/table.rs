//! Columns of text, and the form of times in them.

use jiff::Timestamp;

use crate::report::visible;

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct TextTable {
    rows: Vec<Vec<String>>,
    /// The column that is cut at its beginning.
    telling_end: Option<usize>,
}

/// Spaces between columns.
const GAP: usize = 3;

/// No column is cut below this, so that ids and short names stay whole.
const MIN_CUT: usize = 12;

impl TextTable {
    /// Starts a table with a heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()], telling_end: None }
    }

    /// Starts a table without a heading.
    pub(crate) fn bare() -> Self {
        Self { rows: Vec::new(), telling_end: None }
    }

    /// Where a column must be cut, keeps the ends of its cells: names of images differ there.
    pub(crate) fn with_telling_end(self, column: usize) -> Self {
        Self { telling_end: Some(column), ..self }
    }

    /// Adds a row; control characters in it are escaped.
    pub(crate) fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    /// Returns the table as text.
    pub(crate) fn text(&self) -> String {
        self.text_within(None)
    }

    /// Returns the table as text of at most `width` columns, where that is possible: the widest columns are cut, which shows,
    /// and none below [`MIN_CUT`].
    pub(crate) fn text_within(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        if let Some(width) = width {
            cut_to(&mut widths, width);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = if self.telling_end == Some(column) {
                    shortened_before(cell, *width)
                } else {
                    shortened(cell, *width)
                };
                let length = cell.chars().count();
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', width - length + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Cuts the widest of the columns until all of them fit, or until none is wider than [`MIN_CUT`].
fn cut_to(widths: &mut [usize], most: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
    while over > 0 {
        let Some(widest) = widths.iter_mut().filter(|width| **width > MIN_CUT).max() else { return };
        *widest -= 1;
        over -= 1;
    }
}

/// Returns `text` cut to `limit` characters, with a sign of it.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// Returns the last `limit` characters of `text`, with a sign of it.
fn shortened_before(text: &str, limit: usize) -> String {
    let length = text.chars().count();
    if length <= limit {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(length + 1 - limit)).collect()
}

/// Writes a past time, as in `3 minutes ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(then, now))
}

/// Writes roughly how long it was from `then` to `now`; a clock that was set back counts as no time at all.
pub(crate) fn span(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (count, unit) = match seconds {
        0 => return "less than a second".to_owned(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

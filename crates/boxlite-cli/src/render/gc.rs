//! The output of `gc`.

use std::fmt::Write as _;
use std::time::Duration;

use boxlite::GcReport;
use boxlite::gc::{Explanation, Fate, Item, Skip, SubjectKind};
use boxlite::settings::{Bytes, format_duration};
use jiff::Timestamp;

use super::TextTable;

/// Returns the report for people: every item and its fate, what went wrong, and the sums.
pub(crate) fn gc_text(report: &GcReport) -> String {
    let mut table = TextTable::new(&["KIND", "NAME", "SIZE", "FATE", "WHY"]);
    for (kind, items) in report.kinds() {
        for item in items {
            table.row(row(kind, item, report.dry_run));
        }
    }
    let mut text = String::new();
    if report.items().next().is_some() {
        text = table.text() + "\n";
    }
    // Writing to a string cannot fail.
    for unreadable in &report.unreadable {
        let _ = writeln!(text, "unreadable: {}: {}", unreadable.path.display(), unreadable.reason);
    }
    if !report.unreadable.is_empty() {
        text.push_str("nothing that an unreadable file might need was removed\n");
    }
    let now = Timestamp::now().as_second();
    for item in report.unexplained() {
        let _ = writeln!(text, "{}", unexplained(item, now));
    }
    if report.items().any(|item| item.fate == Fate::Skipped { why: Skip::MayBeNeeded }) {
        text.push_str("blobs that no image refers to stay while a box is unexplained, which may need them\n");
    }
    for failure in &report.failures {
        let _ = writeln!(text, "not removed: {}: {}", failure.path.display(), failure.reason);
    }
    text.push_str(&sums(report));
    text
}

fn row(kind: &str, item: &Item, dry_run: bool) -> [String; 5] {
    let (fate, why) = (item.fate.label(dry_run), item.fate.why(&|_| None));
    [kind.to_owned(), short(&item.name), Bytes(item.allocated).to_string(), fate.to_owned(), why]
}

/// Returns an explanation for people.
pub(crate) fn explanation_text(found: &Explanation, now: Timestamp) -> String {
    let mut text = String::new();
    for (heading, items) in [("", &found.subjects), ("needs:\n", &found.needs)] {
        if items.is_empty() {
            continue;
        }
        let mut table = TextTable::new(&["KIND", "NAME", "SIZE", "FATE", "WHY", "ELIGIBLE"]);
        for explained in items {
            let [kind, name, size, fate, why] = row(subject(explained.kind), &explained.item, true);
            let eligible = match explained.eligible_at.map(|at| at - now.as_second()) {
                None => "not by itself".to_owned(),
                Some(seconds) if seconds <= 0 => "now".to_owned(),
                Some(seconds) => format!("in {} min", (seconds + 59) / 60),
            };
            table.row([kind, name, size, fate, why, eligible]);
        }
        text.push_str(heading);
        text.push_str(&table.text());
    }
    if text.is_empty() {
        text.push_str("nothing that gc judges is behind this name\n");
    }
    // Writing to a string cannot fail.
    for unreadable in &found.unreadable {
        let _ = writeln!(text, "unreadable: {}: {}", unreadable.path.display(), unreadable.reason);
    }
    text
}

fn subject(kind: SubjectKind) -> &'static str {
    match kind {
        SubjectKind::DiskImage => "disk image",
        SubjectKind::Base => "base",
        SubjectKind::BoxDirectory => "box directory",
        SubjectKind::Volume => "volume",
        SubjectKind::Blob => "blob",
        SubjectKind::BootFile => "boot file",
        SubjectKind::Delta => "delta",
        SubjectKind::Unfinished => "unfinished",
        SubjectKind::CatalogEntry => "image",
    }
}

/// Says what an item that nothing explains is, and what can be done about it.
fn unexplained(item: &Item, now: i64) -> String {
    if item.path.parent().is_some_and(|parent| parent.ends_with("volumes")) {
        let (path, size) = (item.path.display(), Bytes(item.allocated));
        return format!(
            "unexplained: {path}, {size}, is not a volume; `boxlite gc --purge volumes/{}`",
            item.name
        );
    }
    let is_base = item.name.as_bytes().ends_with(b".qcow2");
    let image = match &item.image {
        Some(image) => format!(" of a box of {image}"),
        None if is_base => String::new(),
        None => " of a box of unknown image".to_owned(),
    };
    let age = format_duration(Duration::from_secs(now.saturating_sub(item.modified).max(0).unsigned_abs()));
    let adopt = if is_base { String::new() } else { format!("`boxlite gc --adopt {}`, ", item.name) };
    format!(
        "unexplained: {}{image}, {}, last modified {age} ago; {adopt}`boxlite gc --purge {}`",
        item.path.display(),
        Bytes(item.allocated),
        item.name
    )
}

/// Shortens a digest as the other commands do; leaves other names whole.
fn short(name: &str) -> String {
    let stem = name.strip_suffix(".ext4").or_else(|| name.strip_suffix(".qcow2")).unwrap_or(name);
    let hex = stem.strip_prefix("sha256:").unwrap_or(stem);
    let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { hex[..12].to_owned() } else { name.to_owned() }
}

fn sums(report: &GcReport) -> String {
    let count = report.removed().count();
    let things = if count == 1 { "item" } else { "items" };
    let at_least = if report.partial { "at least " } else { "" };
    let bytes = Bytes(report.reclaimed);
    if report.dry_run {
        return format!("{count} {things} would be removed, {at_least}{bytes} freed\n");
    }
    let mut text = format!("{count} {things} removed, {at_least}{bytes} freed");
    if let (Some(change), Some(after)) = (report.free_space_change, &report.free_after) {
        let sign = if change < 0 { "-" } else { "+" };
        let (change, free) = (Bytes(change.unsigned_abs()), Bytes(after.bytes));
        // Writing to a string cannot fail.
        let _ = write!(text, "; free space {sign}{change}, now {free}");
    }
    text + "\n"
}

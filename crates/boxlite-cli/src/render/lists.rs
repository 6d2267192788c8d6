//! The tables of `ls`, `images` and `history`.

use boxlite::settings::Bytes;
use boxlite::{BoxInfo, BoxState, HealthStatus, HistoryEntry, Image, MainProcess, Reference};
use jiff::Timestamp;

use super::table::shortened;
use super::{TextTable, ago, span};

/// The columns that `ls` shows of each box.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BoxColumns {
    /// Do not shorten ids and commands.
    pub(crate) whole: bool,
    /// Show the bytes allocated to each box's disk.
    pub(crate) size: bool,
    /// Columns of the terminal that the table is for, if it is for one.
    pub(crate) width: Option<usize>,
}

const MAX_COMMAND_CHARS: usize = 24;
const MAX_REASON_CHARS: usize = 60;

/// Returns boxes as a table, with times relative to `now`.
pub(crate) fn box_table(boxes: &[BoxInfo], columns: BoxColumns, now: Timestamp) -> String {
    let mut heading = vec!["BOX ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"];
    if columns.size {
        heading.push("DISK");
    }
    let has_nodes = boxes.iter().any(|info| info.node.is_some());
    if has_nodes {
        heading.push("NODE");
    }
    let mut table = TextTable::new(&heading).with_telling_end(1);
    for info in boxes {
        let id = if columns.whole { info.id.as_str() } else { info.short_id() };
        let mut row = vec![
            id.to_owned(),
            info.image.clone(),
            command(&info.options.main, columns.whole),
            ago(info.created_at, now),
            status(info, columns.whole, now),
            ports(info),
            info.name.clone(),
        ];
        if columns.size {
            row.push(
                info.disk_allocated.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string()),
            );
        }
        if has_nodes {
            row.push(info.node.clone().unwrap_or_default());
        }
        table.row(row);
    }
    table.text_within(columns.width)
}

/// Writes the state of a box and since when it has had it.
pub(super) fn status(info: &BoxInfo, whole: bool, now: Timestamp) -> String {
    let since = |moment: Option<Timestamp>| moment.map(|moment| span(moment, now));
    match info.state {
        BoxState::Created => "Created".to_owned(),
        BoxState::Running => {
            let since = since(info.started_at).map(|span| format!(" {span}")).unwrap_or_default();
            format!("Up{since}{}", health(info))
        }
        BoxState::Paused => format!("Paused{}", reason(info, whole)),
        BoxState::Restarting => {
            let code = info.exit_code.map(|code| format!(" ({code})")).unwrap_or_default();
            let when = since(info.finished_at).map(|span| format!(" {span} ago")).unwrap_or_default();
            format!("Restarting{code}{when}{}", reason(info, whole))
        }
        BoxState::Stopped => {
            // The sentence's beginning says what it is about, such as `out of memory`.
            let about = info.reason.iter().filter_map(|reason| reason.split(':').next());
            let notes: Vec<String> = info
                .exit_code
                .map(|code| code.to_string())
                .into_iter()
                .chain(about.map(str::to_owned))
                .collect();
            let code = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
            let when = since(info.finished_at).map(|span| format!(" {span} ago")).unwrap_or_default();
            format!("Stopped{code}{when}")
        }
        BoxState::Failed => {
            let when = since(info.finished_at).map(|span| format!(" {span} ago")).unwrap_or_default();
            format!("Failed{when}{}", reason(info, whole))
        }
    }
}

/// Writes the box's health in parentheses, as Docker's users know it.
fn health(info: &BoxInfo) -> String {
    match info.health.as_ref().map(|health| health.status) {
        None => String::new(),
        Some(HealthStatus::Starting) => " (health: starting)".to_owned(),
        Some(status) => format!(" ({status})"),
    }
}

/// Writes why the box is in its state, in parentheses after it.
fn reason(info: &BoxInfo, whole: bool) -> String {
    let limit = if whole { usize::MAX } else { MAX_REASON_CHARS };
    info.reason.as_deref().map(|reason| format!(" ({})", shortened(reason, limit))).unwrap_or_default()
}

pub(super) fn command(main: &MainProcess, whole: bool) -> String {
    let words = match main {
        MainProcess::Idle => return "(idle)".to_owned(),
        MainProcess::Image { entrypoint: None, command: None } => return "(image's)".to_owned(),
        MainProcess::Image { entrypoint, command } => {
            entrypoint.iter().flatten().chain(command.iter().flatten()).cloned().collect::<Vec<_>>()
        }
    };
    let line = words.join(" ");
    if whole { line } else { shortened(&line, MAX_COMMAND_CHARS) }
}

pub(super) fn ports(info: &BoxInfo) -> String {
    info.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns images as a table, one row per name, with times relative to `now`, for a terminal of so many columns.
pub(crate) fn image_table(images: &[Image], whole: bool, now: Timestamp, width: Option<usize>) -> String {
    let mut table = TextTable::new(&["IMAGE", "ID", "PULLED", "LAST USED", "LAYERS"]).with_telling_end(0);
    for image in images {
        let id = if whole { image.digest.to_string() } else { image.short_id() };
        let mut names: Vec<String> = image.references.iter().map(|name| familiar(name)).collect();
        if names.is_empty() {
            names.push("<none>".to_owned());
        }
        for name in names {
            table.row([
                name,
                id.clone(),
                ago(image.pulled_at, now),
                ago(image.last_used_at, now),
                Bytes(image.stored_bytes()).to_string(),
            ]);
        }
    }
    table.text_within(width)
}

/// Returns the steps of an image's making as a table, with times relative to `now`, for a terminal of so many columns.
pub(crate) fn history_table(
    steps: &[HistoryEntry],
    whole: bool,
    now: Timestamp,
    width: Option<usize>,
) -> String {
    const MAX_STEP_CHARS: usize = 45;
    let mut table = TextTable::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for step in steps {
        let id = match step.digest {
            Some(digest) if whole => digest.to_string(),
            Some(digest) => digest.hex()[..12].to_owned(),
            None => "<missing>".to_owned(),
        };
        let created = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let limit = if whole { usize::MAX } else { MAX_STEP_CHARS };
        table.row([
            id,
            created.map_or_else(|| "unknown".to_owned(), |created| ago(created, now)),
            shortened(&step.created_by, limit),
            Bytes(step.size).to_string(),
            step.comment.clone(),
        ]);
    }
    table.text_within(width)
}

/// Returns a canonical reference without the parts that Docker users leave out.
pub(crate) fn familiar(reference: &str) -> String {
    reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |reference| reference.familiar())
}

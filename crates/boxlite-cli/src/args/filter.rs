//! `--filter KEY=VALUE`.

use boxlite::{BoxFilter, BoxState};

/// Reads a condition on boxes.
pub(crate) fn box_filter(text: &str) -> Result<BoxFilter, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    if value.is_empty() {
        return Err(format!("`{text}` names no value"));
    }
    match key {
        "name" => Ok(BoxFilter::Name(value.to_owned())),
        "id" => Ok(BoxFilter::Id(value.to_ascii_lowercase())),
        "status" | "state" => state(value).map(BoxFilter::State),
        "image" | "ancestor" => Ok(BoxFilter::Image(value.to_owned())),
        "label" => Ok(match value.split_once('=') {
            Some((label, value)) => BoxFilter::Label(label.to_owned(), Some(value.to_owned())),
            None => BoxFilter::Label(value.to_owned(), None),
        }),
        _ => Err(format!("`{key}` is no filter; there are name, id, status, image (or ancestor) and label")),
    }
}

fn state(text: &str) -> Result<BoxState, String> {
    match text {
        "created" => Ok(BoxState::Created),
        "running" => Ok(BoxState::Running),
        "stopped" | "exited" => Ok(BoxState::Stopped),
        "failed" | "dead" => Ok(BoxState::Failed),
        _ => Err(format!("`{text}` is no status; there are created, running, stopped and failed")),
    }
}

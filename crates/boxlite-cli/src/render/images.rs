//! Images as `images` shows them.

use boxlite::settings::Bytes;
use boxlite::{Image, Reference};
use jiff::Timestamp;

use super::{Table, ago};

/// Images as a table, one row for each name, with times relative to `now`.
pub(crate) fn image_table(images: &[Image], whole: bool, now: Timestamp) -> String {
    let mut table = Table::new(&["IMAGE", "ID", "PULLED", "LAST USED", "LAYERS"]);
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
    table.text()
}

/// A canonical reference without what Docker users leave out.
pub(crate) fn familiar(reference: &str) -> String {
    reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |reference| reference.familiar())
}

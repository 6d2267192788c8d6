//! The output of `system df`.

use std::fmt::Write as _;

use boxlite::Usage;
use boxlite::gc::{KindUsage, StoppedUsage};
use boxlite::settings::Bytes;
use jiff::Timestamp;

use super::{TextTable, ago, familiar};

/// Returns what `system df` shows people; with `verbose`, each image, each disk image and each box as well.
pub(crate) fn usage_text(usage: &Usage, verbose: bool, now: Timestamp) -> String {
    let mut kinds = TextTable::new(&["KIND", "COUNT", "ALLOCATED", "RECLAIMABLE"]);
    let mut kind = |name: &str, share: &KindUsage| {
        let bytes = |bytes| Bytes(bytes).to_string();
        kinds.row([
            name.to_owned(),
            share.count.to_string(),
            bytes(share.allocated),
            bytes(share.reclaimable),
        ]);
    };
    kind("disk images", &usage.disk_images);
    kind("deltas", &usage.deltas);
    kind("overlays", &usage.overlays);
    kind("bases", &usage.bases);
    kind("volumes", &usage.volumes);
    kind("blobs", &usage.blobs);
    kind("logs", &usage.logs);
    kind("boot files", &usage.boot_files);
    kind("unfinished", &usage.unfinished);
    kind("unexplained", &usage.unexplained);
    kind("database", &usage.database);
    kind("reserves", &usage.reserves);
    kinds.row(["other".to_owned(), String::new(), Bytes(usage.other).to_string(), Bytes(0).to_string()]);
    let mut text = kinds.text();
    if verbose {
        text.push('\n');
        text.push_str(&image_shares(usage));
        text.push('\n');
        text.push_str(&images(usage, now));
        text.push('\n');
        text.push_str(&boxes(usage));
    }
    // Writing to a string cannot fail.
    let (reclaimable, shared) = (Bytes(usage.reclaimable), Bytes(usage.shared));
    let _ = writeln!(text, "\n`boxlite gc` would free {reclaimable}; {shared} are shared between boxes");
    if usage.stopped.boxes > 0 {
        let StoppedUsage { boxes, own, pinned } = usage.stopped;
        let (own, pinned) = (Bytes(own), Bytes(pinned));
        let _ = writeln!(
            text,
            "boxes that do not run: {boxes}; they take {own} and alone keep {pinned} of disk images and bases"
        );
    }
    for unreadable in &usage.unreadable {
        let _ = writeln!(text, "unreadable: {}: {}", unreadable.path.display(), unreadable.reason);
    }
    text
}

fn image_shares(usage: &Usage) -> String {
    let mut table = TextTable::new(&[
        "IMAGE",
        "IMAGE ID",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "FILES",
        "LAYERS",
        "BOXES",
    ]);
    for image in &usage.image_shares {
        let id = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
        table.row([
            image.reference.as_deref().map_or_else(|| "<none>".to_owned(), familiar),
            id.get(..12).unwrap_or(id).to_owned(),
            Bytes(image.allocated).to_string(),
            Bytes(image.shared).to_string(),
            Bytes(image.unique).to_string(),
            image.files.to_string(),
            format!("{} of {}", image.layers, image.layers_in_all),
            image.boxes.to_string(),
        ]);
    }
    table.text()
}

fn images(usage: &Usage, now: Timestamp) -> String {
    let mut table = TextTable::new(&["DISK IMAGE", "ALLOCATED", "BOXES", "LAST USED", "RECLAIMABLE"]);
    for image in &usage.images {
        let used =
            Timestamp::from_second(image.last_used).map_or_else(|_| "unknown".to_owned(), |at| ago(at, now));
        table.row([
            image.digest.get(..12).unwrap_or(&image.digest).to_owned(),
            Bytes(image.allocated).to_string(),
            image.boxes.to_string(),
            used,
            if image.reclaimable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.text()
}

fn boxes(usage: &Usage) -> String {
    let mut table = TextTable::new(&["BOX ID", "OVERLAYS", "LOGS", "BELOW (SHARED)"]);
    for each in &usage.boxes {
        table.row([
            each.id.get(..12).unwrap_or(&each.id).to_owned(),
            Bytes(each.overlays).to_string(),
            Bytes(each.logs).to_string(),
            Bytes(each.below).to_string(),
        ]);
    }
    table.text()
}

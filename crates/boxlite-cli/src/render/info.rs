//! The output of `info`.

use std::fmt::Write as _;

use boxlite::Verdict;
use boxlite::settings::Bytes;
use boxlite::{HostInfo, JailInfo, MemoryInfo, SpaceInfo};

use super::TextTable;

/// Returns what `info` shows people.
pub(crate) fn info_text(info: &HostInfo) -> String {
    let mut facts = TextTable::bare();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("version", info.version.clone());
    fact("home", info.home.display().to_string());
    let paused = match info.paused {
        0 => String::new(),
        paused => format!(", {paused} of them paused for want of disk space"),
    };
    fact("boxes", format!("{}, {} running{paused}", info.boxes, info.running));
    fact("images", info.images.to_string());
    match &info.acceleration {
        Some(acceleration) => {
            fact("accelerator", format!("{}: {}", acceleration.name, acceleration.reason));
            fact("QEMU", acceleration.qemu.clone());
        }
        None => fact(
            "accelerator",
            format!("none: {}", info.acceleration_problem.as_deref().unwrap_or("unknown")),
        ),
    }
    match &info.space {
        Some(space) => {
            fact("free space", free(space));
            fact("inodes", inodes(space));
            fact("claimed", claimed(space));
            fact("a start", verdict(space.verdict).to_owned());
        }
        None => fact("free space", "unknown; a start warns and goes on".to_owned()),
    }
    match &info.memory {
        Some(memory) => {
            fact("memory", memory_of_host(memory));
            fact("promised", promised(memory));
            fact("used", used(memory));
        }
        None => fact("memory", "unknown; a start goes on unchecked".to_owned()),
    }
    let mut assets = TextTable::new(&["NEEDED", "FOUND AT"]);
    for asset in &info.assets {
        let found = asset.path.as_ref().map(|path| path.display().to_string());
        assets.row([asset.name.clone(), found.unwrap_or_else(|| format!("missing: {}", asset.remedy))]);
    }
    let jail = jail_text(&info.jail);
    let mut settings = TextTable::new(&["SETTING", "VALUE", "FROM"]);
    for line in &info.settings {
        settings.row([line.name.clone(), line.value.clone(), line.origin.to_string()]);
    }
    let mut text = facts.text();
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{}\n{jail}\n{}", assets.text(), settings.text());
    text
}

fn jail_text(jail: &JailInfo) -> String {
    let mut table = TextTable::new(&["JAIL", "STATE", "HOW, OR WHY NOT"]);
    match (&jail.problem, jail.on) {
        (Some(problem), _) => table.row(["all of it".to_owned(), "missing".to_owned(), problem.clone()]),
        (None, false) => {
            table.row(
                ["all of it", "off", "the setting jail is off: boxes have this user's rights"]
                    .map(Into::into),
            );
        }
        (None, true) => {
            for measure in &jail.measures {
                let state = if measure.in_force { "in force" } else { "missing" };
                table.row([measure.name.clone(), state.to_owned(), measure.detail.clone()]);
            }
        }
    }
    table.text()
}

/// Tells whether this host has everything that a box needs.
pub(crate) fn is_complete(info: &HostInfo) -> bool {
    info.acceleration.is_some()
        && info.jail.problem.is_none()
        && info.assets.iter().all(|asset| asset.optional || asset.path.is_some())
}

fn free(space: &SpaceInfo) -> String {
    let (free, total) = (space.free.bytes, space.free.bytes_total);
    let percent = if total == 0 { 0 } else { u128::from(free) * 100 / u128::from(total) };
    format!("{} of {} ({percent} %)", Bytes(free), Bytes(total))
}

fn inodes(space: &SpaceInfo) -> String {
    match space.free.inodes_total {
        0 => "not counted by this filesystem".to_owned(),
        total => format!("{} of {total} free", space.free.inodes),
    }
}

fn claimed(space: &SpaceInfo) -> String {
    let starts = space.claims.len();
    if starts == 0 {
        return "nothing".to_owned();
    }
    let bytes = Bytes(space.claims.iter().sum());
    format!("{bytes} by {starts} start{}", if starts == 1 { "" } else { "s" })
}

fn memory_of_host(memory: &MemoryInfo) -> String {
    let of = match &memory.host.limited_by {
        Some(group) => format!("that the control group {} allows", group.display()),
        None => "of this host".to_owned(),
    };
    format!("boxes may have {} of the {} {of}", Bytes(memory.limit), Bytes(memory.host.bytes))
}

fn promised(memory: &MemoryInfo) -> String {
    let (boxes, guests) = (memory.promises.len(), memory.waiting.len());
    let full = if memory.full { "; a box of the usual size would be refused" } else { "" };
    let waiting = match guests {
        0 => String::new(),
        1 => " and 1 guest that waits for a box".to_owned(),
        guests => format!(" and {guests} guests that wait for a box"),
    };
    if boxes + guests == 0 {
        return format!("nothing{full}");
    }
    let bytes = Bytes(memory.promised());
    format!("{bytes} to {boxes} box{}{waiting}{full}", if boxes == 1 { "" } else { "es" })
}

fn used(memory: &MemoryInfo) -> String {
    let unmeasured = match memory.unmeasured {
        0 => String::new(),
        boxes => format!(" and what {boxes} more take, which cannot be measured"),
    };
    format!("{} by running boxes{unmeasured}", Bytes(memory.used))
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "would be admitted",
        Verdict::Warn => "would collect garbage first, and go on",
        Verdict::Reject => "would collect garbage first, and be refused unless that frees enough",
    }
}

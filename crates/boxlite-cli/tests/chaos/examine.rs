//! What must hold between cycles, asked of the programs themselves.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::host::SmallHost;

/// `qemu-img check` of a resting box's overlay, and `e2fsck` of the filesystem that its chain amounts to.
pub(crate) fn resting_disk(host: &SmallHost, id: &str) -> Result<(), String> {
    let overlay = host.home().join("boxes").join(id).join("disks/root.qcow2");
    let scratch = tempfile::tempdir().unwrap();
    let flat = scratch.path().join("flat");
    tool(Command::new("qemu-img").args(["check", "-q"]).arg(&overlay), &[0, 3])?;
    tool(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&overlay).arg(&flat), &[0])?;
    // What a mount does first: the journal is replayed, and what was deleted while it was open goes.
    tool(Command::new("e2fsck").args(["-p", "-E", "journal_only"]).arg(&flat), &[0, 1])?;
    tool(Command::new("e2fsck").arg("-p").arg(&flat), &[0, 1])?;
    tool(Command::new("e2fsck").args(["-fn"]).arg(&flat), &[0])
}

fn tool(command: &mut Command, fine: &[i32]) -> Result<(), String> {
    let output = command.output().unwrap();
    if output.status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&said)))
}

/// Names and states of all boxes.
pub(crate) fn boxes(host: &SmallHost) -> Vec<(String, String)> {
    let listed = host.boxlite(&["ls", "-a", "--format", "json"]).json();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_lowercase();
    listed.as_array().unwrap().iter().map(|entry| (text(entry, "name"), text(entry, "state"))).collect()
}

/// A look at the home, a collection, and a second that finds nothing; returns the bytes that were reclaimed.
pub(crate) fn home(host: &SmallHost) -> Result<u64, String> {
    let planned = report(host, &["gc", "--dry-run", "--format", "json"])?;
    let done = report(host, &["gc", "--format", "json"])?;
    if planned["reclaimed"] != done["reclaimed"] {
        return Err(format!("gc announced {} and freed {}", planned["reclaimed"], done["reclaimed"]));
    }
    let again = report(host, &["gc", "--format", "json"])?;
    if again["reclaimed"] != 0 {
        return Err(format!("the second gc freed something: {again}"));
    }
    report(host, &["system", "df", "--format", "json"])?;
    for directory in ["images/tmp", "quarantine"] {
        let left = names(&host.home().join(directory));
        if !left.is_empty() {
            return Err(format!("{left:?} are left in {directory}"));
        }
    }
    Ok(done["reclaimed"].as_u64().unwrap_or_default())
}

/// The JSON of a report that says that everything could be read and is explained.
fn report(host: &SmallHost, arguments: &[&str]) -> Result<Value, String> {
    let output = host.boxlite(arguments);
    if output.code() != Some(0) {
        return Err(format!("{arguments:?}: {output:?}"));
    }
    let report = output.json();
    for list in ["unreadable", "failures"] {
        if report[list].as_array().is_some_and(|items| !items.is_empty()) {
            return Err(format!("{arguments:?}: {list}: {}", report[list]));
        }
    }
    if report.to_string().contains(r#""why":"unexplained""#) {
        return Err(format!("{arguments:?}: something is unexplained: {report}"));
    }
    Ok(report)
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

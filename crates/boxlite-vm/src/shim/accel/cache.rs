//! Findings about the host, kept in the home's `vm/host.json` under the boot id and the QEMU binary's identity.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxlite_home::Home;
use boxlite_home::durable::Staged;
use boxlite_types::{Doing, Result};
use serde::{Deserialize, Serialize};

use super::Host;
use super::kvm::KvmFinding;

/// Name of the findings while they are written.
const STAGED: &str = "host.json.partial";

/// How long to wait for another process that writes findings.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    boot: String,
    qemu: PathBuf,
    device: u64,
    inode: u64,
    changed: i64,
    /// When the loader's list of libraries was last made anew.
    libraries: Option<i64>,
    /// Access to the device differs between users, and so may the answer.
    uid: u32,
}

#[derive(Serialize, Deserialize)]
struct Finding {
    key: Key,
    host: Host,
    /// Why boxes run without KVM, as somebody was told last.
    #[serde(default)]
    said: Option<String>,
}

pub(super) fn key(qemu: &Path) -> Result<Key> {
    let binary = std::fs::metadata(qemu).doing("examining QEMU at", qemu)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(Key {
        boot: boot.trim().to_owned(),
        qemu: qemu.to_owned(),
        device: binary.dev(),
        inode: binary.ino(),
        changed: binary.ctime(),
        libraries: std::fs::metadata("/etc/ld.so.cache").ok().map(|list| list.ctime()),
        uid: rustix::process::geteuid().as_raw(),
    })
}

pub(super) fn load(home: &Home, key: &Key) -> Option<Host> {
    let entry = read(home)?;
    (entry.key == *key).then_some(entry.host)
}

fn read(home: &Home) -> Option<Finding> {
    let text = std::fs::read(path(home)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Notes that somebody is told of `reason` why boxes run without KVM, or that there is none any more; true where that is
/// news. Two that start at once may both tell it.
pub(super) fn is_news(home: &Home, reason: Option<&str>) -> bool {
    let said = read(home).and_then(|entry| entry.said);
    if said.as_deref() == reason {
        return false;
    }
    let said = reason.map(str::to_owned);
    if let Err(error) = change(home, |entry| entry.said = said) {
        tracing::debug!(error = %error.chain(), "it was not noted that the accelerator was told");
    }
    true
}

/// Replaces what is known of KVM and leaves the other findings, on which templates rely.
pub(super) fn replace_kvm(home: &Home, key: &Key, kvm: &KvmFinding) {
    let replaced = change(home, |entry| {
        if entry.key == *key {
            entry.host.kvm = kvm.clone();
        }
    });
    if let Err(error) = replaced {
        tracing::debug!(error = %error.chain(), "what is known of KVM was not kept");
    }
}

/// Changes the kept findings, where there are any and no other process writes.
fn change(home: &Home, change: impl FnOnce(&mut Finding)) -> Result<()> {
    let Some(staged) = Staged::take_over(&home.tmp(), STAGED)? else { return Ok(()) };
    let Some(mut entry) = read(home) else { return Ok(()) };
    change(&mut entry);
    publish(staged, &entry, home)
}

/// Keeps `host` unless another process was first, and returns the kept findings: later starts agree on them, as they must
/// to share a template. A cache that cannot be written (a full disk) costs the next start a tenth of a second.
pub(super) fn keep_first(home: &Home, key: &Key, host: Host) -> Host {
    loop {
        if let Some(kept) = load(home, key) {
            return kept;
        }
        match try_keep(home, key, &host) {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(RETRY_INTERVAL),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the findings about this host were not kept");
                return host;
            }
        }
    }
}

/// False while another process writes.
fn try_keep(home: &Home, key: &Key, host: &Host) -> Result<bool> {
    let Some(staged) = Staged::take_over(&home.tmp(), STAGED)? else { return Ok(false) };
    let before = read(home);
    if before.as_ref().is_some_and(|entry| entry.key == *key) {
        return Ok(true);
    }
    let said = before.and_then(|entry| entry.said);
    publish(staged, &Finding { key: key.clone(), host: host.clone(), said }, home).map(|()| true)
}

fn publish(staged: Staged, entry: &Finding, home: &Home) -> Result<()> {
    let text = serde_json::to_vec(entry)
        .map_err(|error| boxlite_types::Error::bug("a host entry does not serialise").because(error))?;
    let written = staged.file().set_len(0).and_then(|()| staged.file().write_all_at(&text, 0));
    written.doing("writing", staged.path())?;
    staged.publish(&path(home)).map(drop)
}

fn path(home: &Home) -> PathBuf {
    home.vm().join("host.json")
}

//! Findings about the host, kept in the home's `vm/host.json` under the boot id and the QEMU binary's identity.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Host;
use crate::durable;
use crate::error::{Doing, Result};
use crate::home::Home;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    boot: String,
    qemu: PathBuf,
    device: u64,
    inode: u64,
    changed: i64,
    /// Access to the device differs between users, and so may the answer.
    uid: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    host: Host,
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
        uid: rustix::process::geteuid().as_raw(),
    })
}

pub(super) fn load(home: &Home, key: &Key) -> Option<Host> {
    let text = std::fs::read(path(home)).ok()?;
    let entry: Entry = serde_json::from_slice(&text).ok()?;
    (entry.key == *key).then_some(entry.host)
}

/// A cache that cannot be written (a full disk) costs the next start a tenth of a second and nothing else.
pub(super) fn store(home: &Home, key: &Key, host: &Host) {
    let entry = Entry { key: key.clone(), host: host.clone() };
    let written = serde_json::to_vec(&entry)
        .map_err(|error| crate::Error::bug("a host entry does not serialise").because(error))
        .and_then(|text| durable::write_atomically(&home.tmp(), &path(home), &text));
    if let Err(error) = written {
        tracing::debug!(%error, "the findings about this host were not kept");
    }
}

fn path(home: &Home) -> PathBuf {
    home.vm().join("host.json")
}

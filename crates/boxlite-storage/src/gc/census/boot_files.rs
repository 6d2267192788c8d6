//! Boot files: kernels, initramfs files and templates in `vm/`.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::boot_file::TEMPLATE;
use boxlite_home::durable;
use boxlite_types::{Doing, Result};

use super::Caches;
use crate::disk::qcow2::chain::nanoseconds;

/// A boot file; times in nanoseconds since 1970.
#[derive(Debug)]
pub(in crate::gc) struct BootFile {
    pub(in crate::gc) name: String,
    pub(in crate::gc) allocated: u64,
    pub(in crate::gc) modified: i64,
    pub(in crate::gc) used: i64,
    /// The last used of its kind.
    pub(in crate::gc) current: bool,
}

impl BootFile {
    pub(in crate::gc) fn is_template(&self) -> bool {
        self.name.starts_with(TEMPLATE)
    }
}

impl Caches {
    pub(super) fn list_boot_files(&mut self, directory: &Path) {
        match list(directory) {
            Ok(files) => self.boot_files = files,
            Err(error) => return self.trouble(directory, error),
        }
        mark_current(&mut self.boot_files);
    }
}

/// The boot files: regular files named as `guest::boot_files` names them. All else there is not gc's business.
fn list(directory: &Path) -> Result<Vec<BootFile>> {
    let doing = "listing";
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).doing(doing, directory)? {
        let entry = entry.doing(doing, directory)?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        if kind(&name).is_none() {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).doing("examining", entry.path()),
        };
        if metadata.is_file() {
            let (modified, used) = times(&metadata);
            let allocated = if metadata.nlink() > 1 { 0 } else { durable::allocated(&metadata) };
            files.push(BootFile { name, allocated, modified, used, current: false });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// The beginning of a boot file's name: `vmlinux`, or `initramfs` or `template` and its devices; `None` for any
/// other file.
fn kind(name: &str) -> Option<&str> {
    let (kind, key) = name.rsplit_once('-')?;
    let is_key = key.len() == 24 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_kind = kind == "vmlinux"
        || kind.split_once('-').is_some_and(|(what, devices)| {
            matches!(what, "initramfs" | TEMPLATE)
                && !devices.is_empty()
                && devices.bytes().all(|byte| byte.is_ascii_lowercase())
        });
    (is_key && is_kind).then_some(kind)
}

fn mark_current(files: &mut [BootFile]) {
    let mut latest: BTreeMap<String, (i64, usize)> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let kind = kind(&file.name).unwrap_or_default().to_owned();
        let last = latest.entry(kind).or_insert((file.used, index));
        if file.used > last.0 {
            *last = (file.used, index);
        }
    }
    for (_, index) in latest.into_values() {
        files[index].current = true;
    }
}

/// When a file was last modified, and last used.
pub(in crate::gc) fn times(metadata: &Metadata) -> (i64, i64) {
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
    (modified, modified.max(nanoseconds(metadata.atime(), metadata.atime_nsec())))
}

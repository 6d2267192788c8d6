//! Compares the files of a box with those of its disk image.

use std::collections::{BTreeMap, HashMap, HashSet};

use boxlite_archive::tree::TreeFile;
use boxlite_ext4::{BlockSource, ListedFile, list_files};
use boxlite_types::{ChangeKind, Digest, Error, Result};

use super::{DIRECTORY, REGULAR, TYPE};

/// Mount points that the guest's agent makes where an image lacks them.
const MOUNT_POINTS: [&[u8]; 10] = [
    b"proc",
    b"sys",
    b"dev",
    b"tmp",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/resolv.conf",
    b"etc",
    b"lib/modules",
    b"usr/lib/modules",
];

/// The files of a disk image by their paths.
#[derive(Debug, Default)]
pub(crate) struct ImageTree(HashMap<Vec<u8>, ListedFile>);

/// The changes of a box to its image.
#[derive(Debug, Default)]
pub(crate) struct BoxChanges {
    /// All changes, in the order of paths.
    pub(crate) all: BTreeMap<Vec<u8>, ChangeKind>,
    /// Places in the box's list of what is there and changed, ascending.
    pub(crate) selected: Vec<u32>,
}

impl ImageTree {
    /// Lists the files of the disk image `digest`.
    pub(crate) fn of(source: &dyn BlockSource, digest: &Digest) -> Result<Self> {
        let mut files = HashMap::new();
        list_files(source, digest.bytes(), &mut |path, file| {
            files.insert(path.to_vec(), file);
        })
        .map_err(|error| {
            Error::unsupported("the box's disk image cannot be compared with its files").because(error)
        })?;
        Ok(Self(files))
    }

    /// Compares the box's files with these.
    pub(crate) fn changes(&self, files: &[TreeFile]) -> BoxChanges {
        let found: HashMap<&[u8], &TreeFile> = files.iter().map(|file| (&*file.path, file)).collect();
        let parents: HashSet<&[u8]> = files.iter().filter_map(|file| parent(&file.path)).collect();
        let mut all = BTreeMap::new();
        let mut touched = Vec::new();
        for file in files {
            let kind = match self.0.get(&file.path) {
                None if is_unused_mount_point(file, &parents) => continue,
                None => ChangeKind::Added,
                Some(known) if differs(file, known) => ChangeKind::Changed,
                Some(known) if !keeps_times(file, known) => {
                    // The agent's mount points touch these directories, too; a change in them is known by its own.
                    if file.mode & TYPE == DIRECTORY && is_parent_of_mount_points(&file.path) {
                        touched.push(file.path.clone());
                        continue;
                    }
                    ChangeKind::Changed
                }
                Some(_) => continue,
            };
            all.insert(file.path.clone(), kind);
        }
        for path in self.0.keys() {
            let is_there = |path: &[u8]| found.get(path).is_some_and(|file| file.mode & TYPE == DIRECTORY);
            if !found.contains_key(&**path) && parent(path).is_some_and(is_there) {
                all.insert(path.clone(), ChangeKind::Deleted);
            }
        }
        // As in Docker, a directory is changed by whatever is changed below it.
        let mut above: HashSet<&[u8]> = HashSet::new();
        for path in all.keys() {
            let mut at = parent(path);
            while let Some(directory) = at.filter(|directory| !directory.is_empty()) {
                if all.contains_key(directory) || !above.insert(directory) {
                    break;
                }
                at = parent(directory);
            }
        }
        let above: Vec<Vec<u8>> = above.into_iter().map(<[u8]>::to_vec).collect();
        all.extend(above.into_iter().map(|path| (path, ChangeKind::Changed)));
        let is_selected = |file: &TreeFile| all.contains_key(&file.path);
        let selected = files.iter().enumerate().filter(|(_, file)| is_selected(file));
        let selected = selected.map(|(place, _)| place as u32).collect();
        BoxChanges { all, selected }
    }
}

/// The directory of a path; none for the root.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash]))
}

/// Whether anything but the times of a directory or a file differs.
fn differs(file: &TreeFile, known: &ListedFile) -> bool {
    let is_directory = file.mode & TYPE == DIRECTORY;
    file.inode != u64::from(known.inode)
        || file.mode != u32::from(known.mode)
        || (file.uid, file.gid) != (known.uid, known.gid)
        || (!is_directory && file.size != known.size)
}

/// Whether nothing has touched the inode since the image was made.
fn keeps_times(file: &TreeFile, known: &ListedFile) -> bool {
    (file.changed.seconds, file.changed.nanoseconds) == (known.seconds, known.nanoseconds)
}

fn is_unused_mount_point(file: &TreeFile, parents: &HashSet<&[u8]>) -> bool {
    let is_unused = match file.mode & TYPE {
        DIRECTORY if file.path == b"etc" => false,
        DIRECTORY => !parents.contains(&*file.path),
        REGULAR => file.size == 0,
        _ => false,
    };
    is_unused && MOUNT_POINTS.contains(&&*file.path)
}

fn is_parent_of_mount_points(path: &[u8]) -> bool {
    MOUNT_POINTS.iter().any(|point| parent(point) == Some(path))
}

/// Refuses a list in which a file has no directory, or a path occurs twice.
pub(super) fn check_is_tree(files: &[TreeFile]) -> Result<()> {
    let refused = |path: &[u8]| {
        Err(Error::corrupt(format!(
            "the box's list of files makes no sense at /{}",
            String::from_utf8_lossy(path)
        )))
    };
    let mut directories: HashSet<&[u8]> = HashSet::new();
    let mut seen: HashSet<&[u8]> = HashSet::new();
    for file in files {
        let is_root = file.path.is_empty();
        if !seen.insert(&file.path)
            || (!is_root && !parent(&file.path).is_some_and(|at| directories.contains(at)))
        {
            return refused(&file.path);
        }
        if file.mode & TYPE == DIRECTORY {
            directories.insert(&file.path);
        }
    }
    if directories.contains(&b""[..]) { Ok(()) } else { refused(b"") }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;

//! The changes of a box to its image.
//!
//! The guest lists the files on its disk; the host lists those of the disk image below, which it has made itself. All
//! times of an inode in a disk image are the same, and the guest's kernel sets the time of change whenever anything of an
//! inode changes, so one that still has its old time of change is the image's. No contents need to be compared.
//!
//! A guest's account concerns its own image alone, and is bounded and checked all the same.

mod archive;
mod compare;
mod layer;

use std::io::Read;

use boxlite_archive::tree::{SELECTION_END, TreeFile};
use boxlite_types::{Error, ErrorKind, FileChange, Result};

pub(super) use archive::write_files;
pub(super) use layer::{FinishedLayer, LayerWriter};

pub(crate) use compare::{BoxChanges, ImageTree};

/// The bits of a mode that are a file's type, and two of the types.
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// The most bytes that the list of a box's files may take in memory.
const MAX_LIST: usize = 256 << 20;
/// The most files of a box that are compared or packed.
const MAX_FILES: usize = 2_000_000;

/// The files of a box, as its guest has listed them.
#[derive(Debug)]
pub struct BoxTree {
    /// In the order of the guest's list.
    pub(crate) files: Vec<TreeFile>,
}

impl BoxTree {
    /// Reads the guest's list.
    ///
    /// # Errors
    /// `Corrupt` for what is no tree: a file without its directory, or two of one path; `Unsupported` for more files than fit in
    /// memory.
    pub fn read(from: &mut impl Read) -> Result<Self> {
        let mut files: Vec<TreeFile> = Vec::new();
        let mut bytes = 0;
        while let Some(file) = TreeFile::read(from).map_err(broken)? {
            bytes += size_of::<TreeFile>() + file.path.len();
            if bytes > MAX_LIST || files.len() == MAX_FILES {
                let message = format!(
                    "the box has more than {} files, and at most {MAX_FILES} are listed, in {} MiB",
                    files.len(),
                    MAX_LIST >> 20
                );
                return Err(Error::unsupported(message));
            }
            files.push(file);
        }
        let tree = Self { files };
        compare::check_is_tree(&tree.files)?;
        Ok(tree)
    }

    /// The answer to the guest that asks for no file.
    pub fn no_selection() -> Vec<u8> {
        SELECTION_END.to_le_bytes().to_vec()
    }

    /// The answer to the guest that asks for the files at `places`, in ascending order.
    pub(crate) fn selection(places: &[u32]) -> Vec<u8> {
        places.iter().chain([&SELECTION_END]).flat_map(|place| place.to_le_bytes()).collect()
    }
}

/// The bytes are not those that a guest's agent sends, or the guest is gone.
pub(crate) fn broken(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::corrupt("the box's list of files makes no sense").because(error)
        }
        _ => match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::new(ErrorKind::Io, "the box's files did not arrive").because(error),
        },
    }
}

/// The changes in the form of `diff`.
pub(crate) fn described(changes: &BoxChanges) -> Vec<FileChange> {
    let described = changes
        .all
        .iter()
        .map(|(path, kind)| FileChange { kind: *kind, path: format!("/{}", String::from_utf8_lossy(path)) });
    described.collect()
}

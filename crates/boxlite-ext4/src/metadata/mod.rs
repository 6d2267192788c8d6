//! From a finished tree to inode numbers and records. Whole images and deltas share this.

mod numbering;
mod records;

pub(crate) use numbering::Numbering;
pub(crate) use records::{RecordWriter, links_of};

use crate::error::{BelowError, EntryRefusal};
use crate::writer::ImageWriteError;

/// Reason why the metadata cannot be written.
#[derive(Debug)]
pub(crate) enum FinishError {
    Writer(ImageWriteError),
    /// One path has metadata that ext4 cannot hold.
    Refused {
        path: Vec<u8>,
        refusal: EntryRefusal,
    },
}

impl From<ImageWriteError> for FinishError {
    fn from(error: ImageWriteError) -> Self {
        Self::Writer(error)
    }
}

impl From<BelowError> for FinishError {
    fn from(error: BelowError) -> Self {
        Self::Writer(error.into())
    }
}

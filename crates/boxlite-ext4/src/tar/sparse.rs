//! Maps of sparse files.

use super::value::{SparseSegment, decimal};

/// Requires ascending, disjoint segments inside the file that use the stored bytes up exactly; drops empty ones.
pub(crate) fn validated(
    mut segments: Vec<SparseSegment>,
    size: u64,
    stored: u64,
) -> Result<Vec<SparseSegment>, String> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for segment in &segments {
        let next = segment.offset.checked_add(segment.length);
        let Some(next) = next.filter(|&next| segment.offset >= end && next <= size) else {
            return Err(format!(
                "a sparse segment at {} of {} bytes overlaps or leaves its file of {size} bytes",
                segment.offset, segment.length
            ));
        };
        end = next;
        total += segment.length;
    }
    if total != stored {
        return Err(format!("a sparse map covers {total} bytes, {stored} are stored"));
    }
    segments.retain(|segment| segment.length > 0);
    Ok(segments)
}

/// Parses the map of GNU sparse 1.0 block by block: a count, then offset and length in turn, one per line.
#[derive(Debug, Default)]
pub(crate) struct MapParser {
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    segments: Vec<SparseSegment>,
}

impl MapParser {
    /// Takes the next block; true once the map is complete, the rest of that block being padding.
    pub(crate) fn feed(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.line.len() > 20 {
                    return Err("a line of a sparse map is too long");
                }
                self.line.push(byte);
                continue;
            }
            let number = decimal(&self.line).ok_or("a line of a sparse map is not a number")?;
            self.line.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.segments.push(SparseSegment { offset, length: number }),
            }
            if self.count == Some(self.segments.len() as u64) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn into_segments(self) -> Vec<SparseSegment> {
        self.segments
    }
}

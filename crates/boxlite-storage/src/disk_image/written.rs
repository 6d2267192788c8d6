//! Disk images whose files come from elsewhere than from a build, and are published as built ones are.

use std::thread;

use boxlite_home::Home;
use boxlite_home::durable::{self, Staged, fault};
use boxlite_types::{Digest, Doing, Error, Result};

use super::BUSY_PAUSE;
use super::build::Segment;
use crate::disk::image_chain::{self, ImageChain, ImageFile};
use crate::disk::whole;
use crate::image::Images;

/// Leases the lowest segments with these ends that are there, of the disk image that its `digests` name, and counts them.
pub(crate) fn present_segments(
    home: &Home,
    digests: &[String],
    ends: &[usize],
) -> Result<(Option<ImageChain>, usize)> {
    let mut chain = None;
    for (position, segment) in cuts(digests, ends).enumerate() {
        let segment = segment.over(chain.as_ref());
        let Some(file) = segment.lease(home)? else { return Ok((chain, position)) };
        chain = Some(ImageChain::with(chain, file));
    }
    Ok((chain, ends.len()))
}

/// Leases the segments with these ends, having `write` fill the file of each that is missing, which is told its position.
/// Blocks.
///
/// Concurrent callers, builders among them, make each file once between them.
///
/// # Errors
/// Those of `write`; `Corrupt` for a file that is not the one of its name.
pub(crate) fn ensure_written(
    images: &Images,
    digests: &[String],
    ends: &[usize],
    write: &mut dyn FnMut(usize, &Staged) -> Result<()>,
) -> Result<ImageChain> {
    let mut chain = None;
    for (position, segment) in cuts(digests, ends).enumerate() {
        let segment = segment.over(chain.as_ref());
        let file = ensure_file(images, &segment, &mut |staged| write(position, staged))?;
        chain = Some(ImageChain::with(chain, file));
    }
    chain.ok_or_else(|| Error::bug("a disk image has no segment"))
}

/// A segment before it is known what lies below it.
struct SegmentCut {
    layers: std::ops::Range<usize>,
    digest: String,
}

impl SegmentCut {
    fn over(self, below: Option<&ImageChain>) -> Segment<'_> {
        Segment { layers: self.layers, digest: self.digest, below }
    }
}

fn cuts<'a>(digests: &'a [String], ends: &'a [usize]) -> impl Iterator<Item = SegmentCut> + 'a {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts
        .zip(ends.iter().copied())
        .map(|(start, end)| SegmentCut { layers: start..end, digest: digests[end.saturating_sub(1)].clone() })
}

fn ensure_file(
    images: &Images,
    segment: &Segment<'_>,
    write: &mut dyn FnMut(&Staged) -> Result<()>,
) -> Result<ImageFile> {
    let home = images.home();
    loop {
        if let Some(there) = segment.lease(home)? {
            return Ok(there);
        }
        let path = segment.path(home);
        let Some(staged) = Staged::take_over(&home.tmp(), &segment.staged_name())? else {
            thread::sleep(BUSY_PAUSE);
            continue;
        };
        if segment.lease(home)?.is_some() {
            continue;
        }
        write(&staged)?;
        fault::point("segment.written").doing("writing", &path)?;
        let foreign = || Error::corrupt("a file is not the one that its name stands for").at(&path);
        if segment.below.is_some() {
            images.store().allow_deltas()?;
            durable::ensure_dir(&home.deltas())?;
        } else {
            let expected = boxlite_ext4::expected_uuid(Digest::from_hex(&segment.digest)?.bytes());
            match boxlite_ext4::read_identity(staged.file()) {
                Ok(found) if found.uuid == expected => {}
                _ => return Err(foreign()),
            }
            whole::seal(staged.file()).doing("reading", staged.path())?;
        }
        let lock = staged.publish(&path)?;
        return image_chain::of_foreign(home, lock, segment.below)?.ok_or_else(foreign);
    }
}

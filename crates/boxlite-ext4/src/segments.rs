//! The cuts of an image's layers into segments.

/// Version of the rule by which layers are cut. The bytes of a segment depend on the cuts below it, so whatever names a
/// segment of several layers names this too. It changes whenever the cuts would.
pub const SEGMENT_RULE: u32 = 2;

/// Least uncompressed size of a segment that others stand on, in bytes.
const MIN_SEGMENT: u64 = 8 << 20;
/// One of the first segments has at least this share of everything below it: one part in 32. What lies above the last cut
/// is stored once per image, so that images that stand on each other would store large segments again and again.
const SHARE: u64 = 32;
/// How many segments are cut that finely.
const FINE_SEGMENTS: usize = 8;
/// A later segment that others stand on has at least this share of everything below it: one quarter.
const LATER_SHARE: u64 = 4;
/// Most segments of one image, so that chains stay short.
const MAX_SEGMENTS: usize = 16;

/// Bytes that a segment must hold before it is cut, given how many lie below it and how many bytes these hold.
fn threshold(segments: usize, below: u64) -> u64 {
    let share = if segments < FINE_SEGMENTS { SHARE } else { LATER_SHARE };
    MIN_SEGMENT.max(below / share)
}

/// Cuts a list of layers, given by their uncompressed sizes in bytes, lowest first, into segments: the end of each one,
/// exclusive. The last end is the number of layers.
///
/// A segment ends after a layer once it holds 8 MiB or one part in 32 of everything below it, whichever is more; from the
/// ninth segment on, a quarter of everything below; and there are at most 16. Whether there is a cut after a layer depends
/// on that layer and those below it alone. So two images with a common prefix of layers agree on every cut within it, and
/// share every segment that ends there.
///
/// ```
/// let mib = |size: u64| size << 20;
/// // A distribution, a runtime, two small layers.
/// let ends = boxlite_ext4::segment_ends(&[mib(80), mib(30), mib(1), mib(2)]);
/// assert_eq!(ends, [1, 2, 4]);
/// ```
pub fn segment_ends(sizes: &[u64]) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut below, mut held) = (0_u64, 0_u64);
    for (position, &size) in sizes.iter().enumerate() {
        held = held.saturating_add(size);
        if held >= threshold(ends.len(), below) && ends.len() + 1 < MAX_SEGMENTS {
            ends.push(position + 1);
            below = below.saturating_add(held);
            held = 0;
        }
    }
    if ends.last() != Some(&sizes.len()) {
        ends.push(sizes.len());
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        let size = prop_oneof![0_u64..1 << 20, 0_u64..64 << 20, 0_u64..4 << 30, Just(u64::MAX)];
        proptest::collection::vec(size, 0..60)
    }

    proptest! {
        /// Mutation tried: the threshold from the sum of all layers; fails.
        #[test]
        fn cuts_depend_on_the_layers_up_to_them_alone(common in sizes(), left in sizes(), right in sizes()) {
            let whole = |more: &[u64]| segment_ends(&[common.as_slice(), more].concat());
            let within = |ends: Vec<usize>| -> Vec<usize> {
                ends.into_iter().filter(|&end| end < common.len()).collect()
            };
            prop_assert_eq!(within(whole(&left)), within(whole(&right)));
            prop_assert_eq!(within(whole(&left)), within(whole(&[])));
        }

        #[test]
        fn segments_hold_all_layers_and_are_worth_their_cut(sizes in sizes()) {
            let ends = segment_ends(&sizes);
            prop_assert_eq!(*ends.last().unwrap(), sizes.len());
            prop_assert!(ends.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(ends.len() <= MAX_SEGMENTS);
            let mut start = 0;
            for (segment, &end) in ends[..ends.len() - 1].iter().enumerate() {
                let sum = |sizes: &[u64]| sizes.iter().fold(0_u64, |sum, &size| sum.saturating_add(size));
                let (below, held) = (sum(&sizes[..start]), sum(&sizes[start..end]));
                prop_assert!(held >= MIN_SEGMENT && held >= threshold(segment, below));
                start = end;
            }
        }
    }

    /// A base, and four images each over the one before: what is stored more than once is little.
    ///
    /// Mutation tried: a quarter from the first segment on; 1.7 times as much.
    #[test]
    fn a_family_stores_little_twice() {
        let layers = [170_u64, 40, 21, 3, 1].map(|size| size << 20);
        let segment = |count: usize| {
            let ends = segment_ends(&layers[..count]);
            (ends.iter().rev().nth(1).copied().unwrap_or(0), count)
        };
        // Each image's topmost segment; those below are among them.
        let tops = (1..=layers.len()).map(segment);
        let stored: u64 = tops.map(|(start, end)| layers[start..end].iter().sum::<u64>()).sum();
        let once: u64 = layers.iter().sum();
        assert!(stored * 100 <= once * 105, "{stored} of {once}");
    }

    #[test]
    fn an_image_without_layers_is_one_segment() {
        assert_eq!(segment_ends(&[]), [0]);
        assert_eq!(segment_ends(&[MIN_SEGMENT - 1]), [1]);
        assert_eq!(segment_ends(&[MIN_SEGMENT, 0]), [1, 2]);
    }
}

//! Bitmaps: lowest bit of each byte first.

/// Sets or clears a range of bits.
pub(crate) fn mark(bitmap: &mut [u8], range: std::ops::Range<u64>, set: bool) {
    let mut bit = range.start as usize;
    let end = range.end as usize;
    while bit < end {
        if bit.is_multiple_of(8) && end - bit >= 8 {
            bitmap[bit / 8] = if set { 0xff } else { 0 };
            bit += 8;
            continue;
        }
        if set {
            bitmap[bit / 8] |= 1 << (bit % 8);
        } else {
            bitmap[bit / 8] &= !(1 << (bit % 8));
        }
        bit += 1;
    }
}

/// True if a bit is set.
pub(crate) fn is_set(bitmap: &[u8], bit: u64) -> bool {
    bitmap[bit as usize / 8] & 1 << (bit % 8) != 0
}

/// The first clear bit of a range.
pub(crate) fn first_clear(bitmap: &[u8], from: u64, end: u64) -> Option<u64> {
    let mut bit = from;
    while bit < end {
        if bit.is_multiple_of(8) && bitmap[bit as usize / 8] == 0xff {
            bit += 8;
        } else if is_set(bitmap, bit) {
            bit += 1;
        } else {
            return Some(bit);
        }
    }
    None
}

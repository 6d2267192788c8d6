//! Maps and sets by the numbers that this daemon gives to files.
//!
//! The daemon counts these numbers up itself and keeps none that it has not given out, so a guest cannot choose them to make
//! lookups slow: the standard library's hash, which withstands chosen keys, is not needed. A write looks six of them up.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by files' numbers.
pub(crate) type NumberedMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// A set of files' numbers.
pub(crate) type NumberedSet = HashSet<u64, BuildHasherDefault<NumberHasher>>;

/// An odd number without a pattern: 2⁶⁴ divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads numbers that follow each other over all bits.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(SPREAD);
    }

    fn finish(&self) -> u64 {
        // A table takes its place from the low bits, which the product's high bits are better for.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_each_other_are_spread_over_low_and_high_bits() {
        let hash = |number| {
            let mut hasher = NumberHasher::default();
            hasher.write_u64(number);
            hasher.finish()
        };
        for (first, step) in [(1, 1), (1 << 20, 1), (1, 64), (1, 4096)] {
            let hashes: Vec<u64> = (0..4096).map(|n| hash(first + n * step)).collect();
            let places: HashSet<u64> = hashes.iter().map(|hash| hash % 8192).collect();
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(
                places.len() > 2500 && tags.len() == 128,
                "{first} {step} {} {}",
                places.len(),
                tags.len()
            );
        }
    }
}

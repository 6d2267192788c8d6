//! Sums by which damage to the files of disk images is found.
//!
//! A sum lies in the file that it is of, or in an attribute of that file: it tells what a fault, a copy or a stray
//! writer has changed. Against a writer who changes the sum as well no function would help, so the sum is XXH3 of 128
//! bits, which costs a tenth of SHA-256 ([`BlockSum`]). What comes from elsewhere is compared with digests before it gets here.
//!
//! Files that an earlier boxlite made have SHA-256, and go on being compared with that.

use boxlite_ext4::BlockSum;
use sha2::{Digest as _, Sha256};

/// The function of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SumKind {
    /// XXH3 of 128 bits.
    Xxh3,
    /// SHA-256, in files that an earlier boxlite made.
    Sha256,
}

impl SumKind {
    /// Bytes of a sum.
    pub(crate) const fn length(self) -> usize {
        match self {
            Self::Xxh3 => 16,
            Self::Sha256 => 32,
        }
    }
}

/// A sum, of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DamageSum {
    /// XXH3 of 128 bits.
    Xxh3([u8; SumKind::Xxh3.length()]),
    /// SHA-256.
    Sha256([u8; SumKind::Sha256.length()]),
}

impl DamageSum {
    /// The sum that begins `bytes`; `None` when they are too few.
    pub(crate) fn read(kind: SumKind, bytes: &[u8]) -> Option<Self> {
        Some(match kind {
            SumKind::Xxh3 => Self::Xxh3(*bytes.first_chunk()?),
            SumKind::Sha256 => Self::Sha256(*bytes.first_chunk()?),
        })
    }

    /// Its function.
    pub(crate) fn kind(&self) -> SumKind {
        match self {
            Self::Xxh3(_) => SumKind::Xxh3,
            Self::Sha256(_) => SumKind::Sha256,
        }
    }

    /// Its bytes, as a file has them.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Xxh3(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }
}

/// Sums up bytes.
#[derive(Debug)]
pub(crate) enum Summer {
    /// For files that are made now.
    Xxh3(BlockSum),
    /// For files of an earlier boxlite.
    Sha256(Sha256),
}

impl Summer {
    pub(crate) fn new(kind: SumKind) -> Self {
        match kind {
            SumKind::Xxh3 => Self::Xxh3(BlockSum::new()),
            SumKind::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Xxh3(sum) => sum.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> DamageSum {
        match self {
            Self::Xxh3(sum) => DamageSum::Xxh3(sum.finish()),
            Self::Sha256(hasher) => DamageSum::Sha256(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `xxhsum -H2` and `sha256sum`: files that are written now are read by later versions.
    #[test]
    fn the_sums_are_those_of_the_tools() {
        let hex = |kind: SumKind, pieces: &[&[u8]]| {
            let mut summer = Summer::new(kind);
            for piece in pieces {
                summer.update(piece);
            }
            hex::encode(summer.finish().bytes())
        };
        assert_eq!(hex(SumKind::Xxh3, &[b"a", b"bc"]), "06b05ab6733a618578af5f94892f3950");
        let long = [b'a'; 1000];
        for pieces in [&[&long[..]][..], &[&long[..7], &long[7..300], &long[300..]]] {
            assert_eq!(hex(SumKind::Xxh3, pieces), "b01da365eddaa29cb3e7af627147db7c");
        }
        assert_eq!(
            hex(SumKind::Sha256, &[b"a", b"bc"]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

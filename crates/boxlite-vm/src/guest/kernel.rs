//! vmlinux out of a bzImage, as the x86 boot protocol lays it out (Linux Documentation/arch/x86/boot.rst).

use std::io::Read;

/// No kernel is larger than this uncompressed; a damaged length must not exhaust memory.
const MAX_UNPACKED: usize = 512 << 20;
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// Why an image can't be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("it is not a bzImage of boot protocol 2.08 or later")]
    NotBzImage,
    #[error("its payload of {length} bytes at {offset} lies outside the file of {file} bytes")]
    Truncated { offset: usize, length: usize, file: usize },
    #[error("its payload is compressed with {0}, which boxlite can't unpack")]
    Unsupported(&'static str),
    #[error("its payload is damaged: {0}")]
    Damaged(String),
    #[error("its payload is not an x86-64 ELF file")]
    NotElf,
}

/// Unpacks a bzImage; an image that is already an ELF file is returned as it is.
pub(super) fn unpack(image: &[u8]) -> Result<Vec<u8>, UnpackError> {
    if is_elf(image) {
        return Ok(image.to_vec());
    }
    let kernel = decompress(payload(image)?)?;
    if is_elf(&kernel) { Ok(kernel) } else { Err(UnpackError::NotElf) }
}

fn is_elf(bytes: &[u8]) -> bool {
    // 64-bit, little endian, machine 62.
    bytes.starts_with(b"\x7fELF\x02\x01") && bytes.get(18..20) == Some(&[62, 0])
}

/// The compressed kernel within a bzImage.
fn payload(image: &[u8]) -> Result<&[u8], UnpackError> {
    let u32_at = |at: usize| image.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let magic = image.get(0x202..0x206) == Some(b"HdrS");
    let version = image.get(0x206..0x208).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    if !magic || version < 0x0208 {
        return Err(UnpackError::NotBzImage);
    }
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32_at(0x248).ok_or(UnpackError::NotBzImage)? as usize + (setup_sectors + 1) * 512;
    let length = u32_at(0x24c).ok_or(UnpackError::NotBzImage)? as usize;
    image.get(offset..offset.saturating_add(length)).ok_or(UnpackError::Truncated {
        offset,
        length,
        file: image.len(),
    })
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let Some((_, trailer)) = payload.split_last_chunk::<4>() else {
        return Err(UnpackError::Damaged("it is empty".to_owned()));
    };
    // Kernel builds append the unpacked length, whatever the format (gzip ends with it by itself).
    let claimed = u32::from_le_bytes(*trailer) as usize;
    if claimed > MAX_UNPACKED {
        return Err(UnpackError::Damaged(format!("it claims to unpack to {claimed} bytes")));
    }
    let unpacked = match payload {
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => lz4_legacy(rest, claimed)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::new(payload).map_err(|e| damaged(&e))?;
            read_exactly(decoder.single_frame(), claimed)?
        }
        [0x1f, 0x8b, ..] => read_exactly(flate2::read::GzDecoder::new(payload), claimed)?,
        [0xfd, b'7', b'z', b'X', ..] => return Err(UnpackError::Unsupported("xz")),
        [b'B', b'Z', b'h', ..] => return Err(UnpackError::Unsupported("bzip2")),
        [0x5d, 0, 0, ..] => return Err(UnpackError::Unsupported("lzma")),
        [0x89, b'L', b'Z', b'O', ..] => return Err(UnpackError::Unsupported("lzo")),
        _ => return Err(UnpackError::Unsupported("an unknown format")),
    };
    if unpacked.len() == claimed {
        Ok(unpacked)
    } else {
        Err(UnpackError::Damaged(format!("it unpacks to {} bytes instead of {claimed}", unpacked.len())))
    }
}

fn damaged(error: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Damaged(error.to_string())
}

fn read_exactly(source: impl Read, claimed: usize) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::with_capacity(claimed);
    source.take(claimed as u64 + 1).read_to_end(&mut out).map_err(|e| damaged(&e))?;
    Ok(out)
}

/// The legacy frame: `{length u32, block}` repeated, each block independent and at most 8 MiB unpacked, no end mark.
fn lz4_legacy(mut rest: &[u8], claimed: usize) -> Result<Vec<u8>, UnpackError> {
    let mut out = vec![0; claimed];
    let mut filled = 0;
    while filled < claimed {
        let Some((length, tail)) = rest.split_first_chunk::<4>() else {
            return Err(UnpackError::Damaged(format!("it ends after {filled} of {claimed} bytes")));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((block, tail)) = tail.split_at_checked(length) else {
            return Err(UnpackError::Damaged(format!("a block of {length} bytes exceeds it")));
        };
        let end = claimed.min(filled + LZ4_LEGACY_BLOCK);
        let n = lz4_flex::block::decompress_into(block, &mut out[filled..end]).map_err(|e| damaged(&e))?;
        if n == 0 {
            return Err(UnpackError::Damaged("a block unpacks to nothing".to_owned()));
        }
        filled += n;
        rest = tail;
    }
    Ok(out)
}

#[cfg(test)]
mod tests;

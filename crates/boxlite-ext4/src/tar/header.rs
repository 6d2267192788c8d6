//! One 512-byte header block: fields, checksum, dialect.

use super::value::SparseSegment;

/// Size of a header block and unit of padding in bytes.
pub(crate) const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header whose checksum is right and whose numbers parse.
#[derive(Debug)]
pub(crate) struct TarHeader<'a> {
    block: &'a [u8; BLOCK],
    pub(crate) dialect: Dialect,
    pub(crate) typeflag: u8,
    pub(crate) mode: i64,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    /// Bytes of data that follow, unless a pax record says otherwise.
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) device: (i64, i64),
}

impl<'a> TarHeader<'a> {
    pub(crate) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, &'static str> {
        check(block)?;
        let dialect = match (&block[257..263], &block[263..265], &block[508..512]) {
            (b"ustar\0", _, b"tar\0") => Dialect::Star,
            (b"ustar\0", ..) => Dialect::Ustar,
            (b"ustar ", b" \0", _) => Dialect::Gnu,
            _ => Dialect::V7,
        };
        let size = number(&block[124..136]).ok_or("the size field is not a number")?;
        let device = if dialect == Dialect::V7 {
            (0, 0)
        } else {
            (
                number(&block[329..337]).ok_or("the device major field is not a number")?,
                number(&block[337..345]).ok_or("the device minor field is not a number")?,
            )
        };
        Ok(Self {
            block,
            dialect,
            typeflag: block[156],
            mode: number(&block[100..108]).ok_or("the mode field is not a number")?,
            uid: number(&block[108..116]).ok_or("the uid field is not a number")?,
            gid: number(&block[116..124]).ok_or("the gid field is not a number")?,
            size: u64::try_from(size).map_err(|_| "the size field is negative")?,
            mtime: number(&block[136..148]).ok_or("the mtime field is not a number")?,
            device,
        })
    }

    /// The name with its prefix.
    pub(crate) fn name(&self) -> Vec<u8> {
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::Gnu => self.misplaced_prefix(),
            Dialect::V7 => &[],
        };
        let name = text(&self.block[..100]);
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// Go before 1.8 wrote ustar prefixes under GNU magic, where GNU keeps access times.
    fn misplaced_prefix(&self) -> &'a [u8] {
        let atime = &self.block[345..357];
        let prefix = text(&self.block[345..500]);
        if atime[0] != 0 && number(atime).is_none() && prefix.is_ascii() { prefix } else { &[] }
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    /// Old GNU sparse: the size of the file with its holes.
    pub(crate) fn sparse_size(&self) -> Option<u64> {
        number(&self.block[483..495]).and_then(|size| u64::try_from(size).ok())
    }

    /// Old GNU sparse: the map's first four entries, and whether extension blocks follow.
    pub(crate) fn sparse_entries(&self) -> Result<(Vec<SparseSegment>, bool), &'static str> {
        let mut segments = Vec::new();
        sparse_entries(&self.block[386..482], &mut segments)?;
        Ok((segments, self.block[482] != 0))
    }
}

/// Adds the entries of an old GNU sparse extension block; true if another one follows.
pub(crate) fn sparse_extension(
    block: &[u8; BLOCK],
    segments: &mut Vec<SparseSegment>,
) -> Result<bool, &'static str> {
    sparse_entries(&block[..504], segments)?;
    Ok(block[504] != 0)
}

fn sparse_entries(field: &[u8], segments: &mut Vec<SparseSegment>) -> Result<(), &'static str> {
    for entry in field.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        let unsigned = |field| number(field).and_then(|value| u64::try_from(value).ok());
        let (Some(offset), Some(length)) = (unsigned(&entry[..12]), unsigned(&entry[12..])) else {
            return Err("a sparse map entry is not a number");
        };
        segments.push(SparseSegment { offset, length });
    }
    Ok(())
}

fn check(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stored = number(&block[148..156]).ok_or("the checksum field is not a number")?;
    // The checksum itself counts as blanks. Plain sums, which the compiler makes wide: this runs for every entry.
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let negative = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte >= 0x80).count() as i64;
    let counted = [&block[..148], &block[156..]];
    let unsigned = counted.map(sum).iter().sum::<i64>() + 8 * i64::from(b' ');
    let signed = unsigned - 0x100 * counted.map(negative).iter().sum::<i64>();
    if stored == unsigned || stored == signed { Ok(()) } else { Err("the header's checksum is wrong") }
}

fn text(field: &[u8]) -> &[u8] {
    field.iter().position(|&byte| byte == 0).map_or(field, |end| &field[..end])
}

/// An octal field padded by spaces or NULs, or GNU's base 256, big-endian two's complement after a mark bit.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let fill = if negative { 0xff } else { 0 };
        let mut value: u64 = if negative { u64::MAX } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = match index {
                0 if negative => byte,
                0 => byte & 0x7f,
                _ => byte,
            };
            if (value >> 56) as u8 != fill {
                return None;
            }
            value = value << 8 | u64::from(byte);
        }
        let value = value.cast_signed();
        return ((value < 0) == negative).then_some(value);
    }
    let padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(start) = field.iter().position(|byte| !padding(byte)) else {
        return Some(0);
    };
    let digits = text(&field[start..]);
    let digits = digits.trim_ascii_end();
    let mut value = 0_i64;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

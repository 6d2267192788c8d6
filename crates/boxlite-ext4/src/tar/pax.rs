//! Records of a pax extended header: `LENGTH KEY=VALUE\n`, the length counting all of it.

use super::value::{SparseSegment, Timestamp, decimal};

/// The records of one extended header in their order.
#[derive(Debug, Default)]
pub(crate) struct PaxRecords {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl PaxRecords {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = bytes;
        let mut records = Vec::new();
        while !rest.is_empty() {
            // Some writers pad the body with NULs.
            if rest.iter().all(|&byte| byte == 0) {
                break;
            }
            let space = rest.iter().position(|&byte| byte == b' ').ok_or("a pax record has no length")?;
            let length = decimal(&rest[..space]).ok_or("a pax record's length is not a number")?;
            let length = usize::try_from(length).map_err(|_| "a pax record's length is out of bounds")?;
            if length > rest.len() || length < space + 3 {
                return Err("a pax record's length is out of bounds");
            }
            let (record, following) = rest.split_at(length);
            let Some((b'\n', body)) = record[space + 1..].split_last() else {
                return Err("a pax record does not end in a newline");
            };
            let equals = body.iter().position(|&byte| byte == b'=').ok_or("a pax record has no key")?;
            let (key, value) = (&body[..equals], &body[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err("a pax record's key is empty or holds a NUL");
            }
            if matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name") && value.contains(&0) {
                return Err("a path in a pax record holds a NUL");
            }
            records.push((key.to_vec(), value.to_vec()));
            rest = following;
        }
        Ok(Self { records })
    }

    /// Returns the last value of a key; an empty one takes the record back.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.records.iter().rev().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value.as_slice())
    }

    /// A decimal record; `Err` if it is there and is not a number.
    pub(crate) fn number(&self, key: &[u8]) -> Result<Option<u64>, &'static str> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => decimal(value).map(Some).ok_or("a numeric pax record is not a number"),
        }
    }

    pub(crate) fn mtime(&self) -> Result<Option<Timestamp>, &'static str> {
        match self.get(b"mtime") {
            None => Ok(None),
            Some(value) => timestamp(value).map(Some).ok_or("the pax mtime is not a time"),
        }
    }

    /// Extended attributes, the last value of each name, ordered by name.
    pub(crate) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = std::collections::BTreeMap::new();
        for (key, value) in &self.records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                found.insert(name.to_vec(), value.clone());
            }
        }
        // An empty value takes a record back, also here: that is pax, and what Go reads.
        found.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// True if the map of a sparse file precedes its data (GNU sparse 1.0).
    pub(crate) fn sparse_map_in_data(&self) -> bool {
        self.get(b"GNU.sparse.major") == Some(b"1") && self.get(b"GNU.sparse.minor") == Some(b"0")
    }

    /// The map of GNU sparse 0.0 (repeated records) or 0.1 (one list).
    pub(crate) fn sparse_inline(&self) -> Result<Option<Vec<SparseSegment>>, &'static str> {
        const BAD: &str = "a sparse map in a pax record is not a list of numbers";
        let version = (self.get(b"GNU.sparse.major"), self.get(b"GNU.sparse.minor"));
        if !matches!(version, (None, None) | (Some(b"0"), Some(b"0" | b"1"))) {
            return if self.sparse_map_in_data() {
                Ok(None)
            } else {
                Err("an unknown version of GNU sparse")
            };
        }
        let mut numbers = Vec::new();
        if let Some(map) = self.get(b"GNU.sparse.map") {
            for number in map.split(|&byte| byte == b',') {
                numbers.push(decimal(number).ok_or(BAD)?);
            }
        } else {
            let mut expected: &[u8] = b"GNU.sparse.offset";
            for (key, value) in &self.records {
                if !matches!(key.as_slice(), b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                    continue;
                }
                if key != expected {
                    return Err(BAD);
                }
                numbers.push(decimal(value).ok_or(BAD)?);
                expected = if numbers.len() % 2 == 0 { b"GNU.sparse.offset" } else { b"GNU.sparse.numbytes" };
            }
            if numbers.is_empty() && self.get(b"GNU.sparse.numblocks").is_none() {
                return Ok(None);
            }
        }
        if numbers.len() % 2 != 0 {
            return Err(BAD);
        }
        let segments: Vec<_> =
            numbers.chunks_exact(2).map(|pair| SparseSegment { offset: pair[0], length: pair[1] }).collect();
        if let Some(count) = self.number(b"GNU.sparse.numblocks")?
            && count != segments.len() as u64
        {
            return Err("a sparse map has another length than announced");
        }
        Ok(Some(segments))
    }
}

/// Seconds with an optional fraction, cut at nanoseconds.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix(b"+").unwrap_or(text)),
    };
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = point.map_or((text, &[][..]), |point| (&text[..point], &text[point + 1..]));
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    let mut unit = 100_000_000;
    for &digit in fraction {
        if !digit.is_ascii_digit() {
            return None;
        }
        nanoseconds += u32::from(digit - b'0') * unit;
        unit /= 10;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

//! Amounts as people write them: bytes, percentages, durations, switches.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes that reads `512MiB`, `1GiB`, `5G` or `4096`, and prints itself in binary units.
///
/// Units are powers of 1024 whether or not the `i` is written, as for `docker --memory`; case does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Text that is not the amount it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct BadAmount {
    pub(super) text: String,
    pub(super) expected: &'static str,
}

impl BadAmount {
    pub(super) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

const A_SIZE: &str = "a size in bytes such as 4096, 512MiB, 1.5GiB or 5G (below 16 EiB)";

impl FromStr for Bytes {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let bad = || BadAmount::new(text, A_SIZE);
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            "p" | "pb" | "pib" => 1 << 50,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && (fraction.is_empty() || factor == 1)) {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let mut bytes = whole.checked_mul(factor).ok_or_else(bad)?;
        if !fraction.is_empty() {
            if fraction.len() > 9 {
                return Err(bad());
            }
            let numerator: u64 = fraction.parse().map_err(|_| bad())?;
            let part = u128::from(numerator) * u128::from(factor) / 10_u128.pow(fraction.len() as u32);
            bytes = bytes.checked_add(part as u64).ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in UNITS {
            if self.0 < factor {
                continue;
            }
            return if self.0.is_multiple_of(factor) {
                write!(f, "{} {unit}", self.0 / factor)
            } else {
                write!(f, "{:.2} {unit}", self.0 as f64 / factor as f64)
            };
        }
        write!(f, "{} B", self.0)
    }
}

/// Reads `90`, `90s`, `10m`, `2h`, `7d` or `1h30m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadAmount> {
    let bad = || BadAmount::new(text, "a duration such as 90s, 10m, 2h, 7d or 1h30m");
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(bad());
    }
    if let Ok(seconds) = trimmed.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total: u64 = 0;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or_else(bad)?;
        let number: u64 = rest[..end].parse().map_err(|_| bad())?;
        let (factor, tail) = ["d", "h", "min", "m", "s"]
            .iter()
            .zip([86_400, 3_600, 60, 60, 1])
            .find_map(|(unit, factor)| rest[end..].strip_prefix(unit).map(|tail| (factor, tail)))
            .ok_or_else(bad)?;
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_secs(total))
}

/// Prints a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

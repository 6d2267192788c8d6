//! Conversions of time.

use jiff::Timestamp;

/// A time that a shim wrote down as milliseconds since 1970; `None` beyond the year 9999.
pub(crate) fn from_unix_ms(milliseconds: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds.cast_signed()).ok()
}

//! Moments and durations as people write them.

use boxlite::settings::parse_duration;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Reads a moment: `2026-01-02T03:04:05Z`, a local date or time without zone, or a duration before now (`10m`).
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_before(text, Timestamp::now())
}

pub(super) fn moment_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return TimeZone::system()
            .to_timestamp(local)
            .map_err(|error| format!("`{text}` is out of range: {error}"));
    }
    parse_duration(text).ok().and_then(|span| now.checked_sub(span).ok()).ok_or_else(|| {
        format!("`{text}` is neither a time such as 2026-01-02T03:04:05Z nor a duration such as 10m or 36h")
    })
}

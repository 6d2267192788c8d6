//! Values as people write them: signals, times and labels.

use std::str::FromStr;

use boxlite::parse_signal;
use boxlite::settings::parse_duration;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// A figure, or the word `auto` for what this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AutoOr<T> {
    Auto,
    Given(T),
}

impl<T: FromStr> FromStr for AutoOr<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given) }
    }
}

/// Splits a label into its name and its value, which is empty where there is none.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("a label has a name, as in tier=front".into()),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Reads `KILL`, `SIGKILL`, `sigkill` or `9`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    parse_signal(text).map_err(|error| error.to_string())
}

/// Checks a signal but keeps it as it was written.
pub(crate) fn signal_name(text: &str) -> Result<String, String> {
    signal(text).map(|_| text.to_owned())
}

/// Reads a duration such as `90s` or `1h30m` as seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    parse_duration(text).map(|duration| duration.as_secs()).map_err(|error| error.to_string())
}

/// Reads a duration such as `90s`, `1h30m` or `500ms` as milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    if let Some(number) = text.strip_suffix("ms").and_then(|number| number.parse().ok()) {
        return Ok(number);
    }
    parse_duration(text)
        .map_err(|error| error.to_string())
        .and_then(|duration| u64::try_from(duration.as_millis()).map_err(|_| format!("`{text}` is too long")))
}

/// Reads a time: `2026-01-02T03:04:05Z`, a local date or time without zone, or a duration before now (`10m`).
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_before(text, Timestamp::now())
}

fn moment_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_name_and_may_have_a_value() {
        let label_of = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(label("a=b=c"), label_of("a", "b=c"));
        assert_eq!((label("a="), label("a")), (label_of("a", ""), label_of("a", "")));
        assert!(label("=b").is_err() && label("=").is_err() && label("").is_err());
    }

    #[test]
    fn times_of_probes_have_milliseconds() {
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!((milliseconds("1m30s"), milliseconds("2")), (Ok(90_000), Ok(2_000)));
        assert!(
            milliseconds("ms").is_err()
                && milliseconds("-1ms").is_err()
                && milliseconds("99999999999999999d").is_err()
        );
    }

    #[test]
    fn moments_are_absolute_or_relative() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let at = |text: &str| moment_before(text, now).map(|moment| moment.to_string());
        assert_eq!(at("2026-01-02T03:04:05Z").unwrap(), "2026-01-02T03:04:05Z");
        assert_eq!(at("2026-01-02T03:04:05+02:00").unwrap(), "2026-01-02T01:04:05Z");
        assert_eq!(at("10m").unwrap(), "2026-03-01T11:50:00Z");
        assert_eq!(at("1h30m").unwrap(), "2026-03-01T10:30:00Z");
        assert_eq!(at("7d").unwrap(), "2026-02-22T12:00:00Z");
        assert!(at("-5m").is_err() && at("soon").is_err() && at("99999999999d").is_err());
    }
}

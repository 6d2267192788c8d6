//! `HEALTHCHECK` as a Dockerfile has it, as part of an image's configuration.

use boxlite_home::settings::parse_duration;
use serde_json::{Map, Value, json};

/// Reads `NONE`, or options and `CMD` with a list or a line for the shell; returns what the configuration has for it.
///
/// # Errors
/// A sentence that says why the text is none of these.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.eq_ignore_ascii_case("NONE") {
        return Ok(json!({"Test": ["NONE"]}));
    }
    let mut check = Map::new();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, behind) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} has no value"))?;
        let (key, value) = match name {
            "interval" => ("Interval", nanoseconds(value)?),
            "timeout" => ("Timeout", nanoseconds(value)?),
            "start-period" => ("StartPeriod", nanoseconds(value)?),
            "start-interval" => ("StartInterval", nanoseconds(value)?),
            "retries" => {
                ("Retries", value.parse::<u32>().map_err(|_| format!("'{value}' is not a number"))?.into())
            }
            _ => return Err(format!("--{name} is not an option of a health check")),
        };
        check.insert(key.to_owned(), json!(value));
        rest = behind.trim_start();
    }
    let command = rest.strip_prefix("CMD").or_else(|| rest.strip_prefix("cmd")).map(str::trim);
    let command = command.filter(|command| !command.is_empty());
    let command = command.ok_or("it is neither NONE nor CMD with a command")?;
    let test = if command.starts_with('[') {
        let words = serde_json::from_str::<Vec<String>>(command).ok().filter(|words| !words.is_empty());
        let words =
            words.ok_or_else(|| format!("{command} is not a list such as [\"test\", \"-e\", \"/ready\"]"))?;
        [vec!["CMD".to_owned()], words].concat()
    } else {
        vec!["CMD-SHELL".to_owned(), command.to_owned()]
    };
    check.insert("Test".to_owned(), json!(test));
    Ok(check.into())
}

fn nanoseconds(text: &str) -> Result<u64, String> {
    let ms = text.strip_suffix("ms").and_then(|number| number.parse::<u64>().ok());
    let nanos = if let Some(ms) = ms {
        ms.checked_mul(1_000_000)
    } else {
        let duration = parse_duration(text).map_err(|error| error.to_string())?;
        u64::try_from(duration.as_nanos()).ok()
    };
    // Docker's are signed.
    nanos.filter(|nanos| i64::try_from(*nanos).is_ok()).ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_read_as_in_a_dockerfile() {
        assert_eq!(parse("none"), Ok(json!({"Test": ["NONE"]})));
        assert_eq!(
            parse("CMD test -e /a || exit 1"),
            Ok(json!({"Test": ["CMD-SHELL", "test -e /a || exit 1"]}))
        );
        let full = "--interval=1m30s --timeout=500ms  --start-period=5s --start-interval=1s --retries=2 CMD [\"a\", \"b\"]";
        let expected = json!({
            "Test": ["CMD", "a", "b"], "Interval": 90_000_000_000_u64, "Timeout": 500_000_000,
            "StartPeriod": 5_000_000_000_u64, "StartInterval": 1_000_000_000, "Retries": 2
        });
        assert_eq!(parse(full), Ok(expected));
        for wrong in [
            "",
            "CMD",
            "CMD []",
            "CMD [1]",
            "--interval CMD a",
            "--interval=x CMD a",
            "--colour=1 CMD a",
            "--retries=-1 CMD a",
            "--interval=9999999999999d CMD a",
            "curl x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

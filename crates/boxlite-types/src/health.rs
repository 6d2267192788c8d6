//! Whether a box is healthy: what checks it, and what came of that.

use std::time::Duration;

use boxlite_proto::ProbeRecord;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A check of a box's health, as an image or a caller asks for it: a command that succeeds in a healthy box.
///
/// The image's check fills what a caller's leaves out, and Docker's defaults fill what both leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// `["CMD", PROGRAM, …]`, `["CMD-SHELL", LINE]`, or `["NONE"]` for no check; empty for the one below.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Milliseconds between two probes, and before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Milliseconds after which a probe is killed and has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds after the start in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// Milliseconds between two probes in the start period, until one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval_ms: Option<u64>,
    /// Failures in a row that make the box unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// A check with everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPlan {
    /// The command.
    pub argv: Vec<String>,
    /// Between two probes, and before the first.
    pub interval: Duration,
    /// When a probe is killed.
    pub timeout: Duration,
    /// For how long after the start failures do not count.
    pub start_period: Duration,
    /// Between two probes in the start period, until one succeeds.
    pub start_interval: Duration,
    /// Failures in a row that make the box unhealthy.
    pub retries: u32,
}

/// The least of each time, as Docker has it.
const MIN_TIME_MS: u64 = 1;

/// The most of each time: what a clock of milliseconds in a guest can add without an overflow, and more than anybody waits for.
const MAX_TIME_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

impl HealthPlan {
    const INTERVAL: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(30);
    const START_INTERVAL: Duration = Duration::from_secs(5);
    const RETRIES: u32 = 3;

    /// The check of a box whose caller and whose image ask for these; `None` where there is none.
    ///
    /// # Errors
    /// `InvalidInput` for what the caller cannot mean. What is wrong in an image is left out.
    pub fn of(asked: Option<&HealthCheck>, image: Option<&HealthCheck>) -> Result<Option<Self>> {
        let default = HealthCheck::default();
        let (asked, below) = (asked.unwrap_or(&default), image.unwrap_or(&default));
        asked.check()?;
        let test = if asked.test.is_empty() { &below.test[..] } else { &asked.test[..] };
        let argv = match test.first().map(String::as_str) {
            Some("CMD") => test[1..].to_vec(),
            Some("CMD-SHELL") => [&["/bin/sh".to_owned(), "-c".to_owned()], &test[1..]].concat(),
            _ => Vec::new(),
        };
        if argv.is_empty() || argv[0].is_empty() {
            return Ok(None);
        }
        let time = |of: fn(&HealthCheck) -> Option<u64>, default: Duration| {
            let given = |check: &HealthCheck| of(check).filter(|ms| *ms >= MIN_TIME_MS);
            let ms = given(asked).or_else(|| given(below));
            ms.map_or(default, |ms| Duration::from_millis(ms.min(MAX_TIME_MS)))
        };
        let retries = |check: &HealthCheck| check.retries.filter(|count| *count > 0);
        Ok(Some(Self {
            argv,
            interval: time(|check| check.interval_ms, Self::INTERVAL),
            timeout: time(|check| check.timeout_ms, Self::TIMEOUT),
            start_period: time(|check| check.start_period_ms, Duration::ZERO),
            start_interval: time(|check| check.start_interval_ms, Self::START_INTERVAL),
            retries: retries(asked).or_else(|| retries(below)).unwrap_or(Self::RETRIES),
        }))
    }
}

impl HealthCheck {
    /// Whether it says that nothing is checked.
    pub fn is_none(&self) -> bool {
        self.test.first().is_some_and(|word| word == "NONE")
    }

    /// Checks what a caller asks for.
    ///
    /// # Errors
    /// `InvalidInput`, saying what is wrong.
    pub fn check(&self) -> Result<()> {
        let words: Vec<&str> = self.test.iter().map(String::as_str).collect();
        match words[..] {
            [] | ["NONE"] => {}
            ["CMD", program, ..] | ["CMD-SHELL", program] if !program.is_empty() => {}
            _ => {
                return Err(Error::invalid(format!(
                    "{:?} is not a check of health: write [\"CMD\", PROGRAM, …], [\"CMD-SHELL\", LINE] or [\"NONE\"]",
                    self.test
                )));
            }
        }
        let times = [self.interval_ms, self.timeout_ms, self.start_period_ms, self.start_interval_ms];
        if self.is_none() && (times.iter().any(Option::is_some) || self.retries.is_some()) {
            return Err(Error::invalid(
                "a box without a check of its health has no times for one: leave out either",
            ));
        }
        if let Some(ms) = times.into_iter().flatten().find(|ms| *ms > MAX_TIME_MS) {
            return Err(Error::invalid(format!(
                "{ms} ms are more than ten years, too long for a check of health"
            )));
        }
        Ok(())
    }
}

/// The state of a box's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its present status.
    pub status: HealthStatus,
    /// Probes in a row that failed.
    pub failing_streak: u32,
    /// When it came to this status.
    pub since: Timestamp,
    /// The last probes, oldest first; told by `inspect` alone. A hostile guest may lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<PastProbe>,
}

/// A probe of a box's health that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastProbe {
    /// When it began.
    pub start: Timestamp,
    /// When it had ended.
    pub end: Timestamp,
    /// The exit status of its command; -1 where its time was over.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

impl From<ProbeRecord> for PastProbe {
    fn from(record: ProbeRecord) -> Self {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap_or_default();
        Self {
            start: at(record.began_unix_ms),
            end: at(record.ended_unix_ms),
            exit_code: record.exit_code,
            output: record.output,
        }
    }
}

/// The states of a running box's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// No probe has succeeded yet, and too few have failed.
    Starting,
    /// The last probe that counts succeeded, or too few have failed since.
    Healthy,
    /// Too many probes in a row have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Healthy, Self::Unhealthy];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl std::fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[allow(clippy::needless_pass_by_value, reason = "the tests read better")]
    fn plan(asked: Option<HealthCheck>, image: Option<HealthCheck>) -> Result<Option<HealthPlan>> {
        HealthPlan::of(asked.as_ref(), image.as_ref())
    }

    /// Mutations tried: the image's time before the caller's; a time of the image without a bound.
    #[test]
    fn what_is_absent_is_the_image_s_and_then_docker_s() {
        let image = HealthCheck {
            test: words("CMD /check -v"),
            interval_ms: Some(10_000),
            timeout_ms: Some(0),
            start_period_ms: Some(u64::MAX),
            retries: Some(0),
            ..HealthCheck::default()
        };
        assert_eq!(plan(None, None).unwrap(), None);
        let own = plan(None, Some(image.clone())).unwrap().unwrap();
        let expected = HealthPlan {
            argv: words("/check -v"),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_millis(MAX_TIME_MS),
            start_interval: Duration::from_secs(5),
            retries: 3,
        };
        assert_eq!(own, expected);
        let times = HealthCheck {
            retries: Some(7),
            interval_ms: Some(3_000),
            timeout_ms: Some(5),
            ..HealthCheck::default()
        };
        let merged = plan(Some(times.clone()), Some(image.clone())).unwrap().unwrap();
        let (interval, timeout) = (Duration::from_secs(3), Duration::from_millis(5));
        assert_eq!(merged, HealthPlan { retries: 7, interval, timeout, ..expected });
        assert_eq!(plan(Some(times.clone()), None).unwrap(), None, "times alone check nothing");
        let shell = HealthCheck { test: vec!["CMD-SHELL".into(), "exit 1".into()], ..times };
        assert_eq!(
            plan(Some(shell), Some(image.clone())).unwrap().unwrap().argv,
            ["/bin/sh", "-c", "exit 1"]
        );
        let none = HealthCheck { test: words("NONE"), ..HealthCheck::default() };
        assert_eq!(plan(Some(none), Some(image)).unwrap(), None);
    }

    /// Mutation tried: a command without a name is one.
    #[test]
    fn what_is_no_check_is_refused_of_a_caller_and_left_out_of_an_image() {
        for test in ["CHECK a", "CMD", "CMD-SHELL", "CMD-SHELL a b", "NONE a", "CMD "] {
            let check = HealthCheck { test: words(test), ..HealthCheck::default() };
            assert_eq!(check.check().unwrap_err().kind(), crate::ErrorKind::InvalidInput, "{test}");
        }
        for test in ["CHECK a", "CMD", "CMD "] {
            let bad = HealthCheck { test: words(test), ..HealthCheck::default() };
            assert_eq!(plan(None, Some(bad)).unwrap(), None, "{test}");
        }
        let timed_none = HealthCheck { test: words("NONE"), retries: Some(1), ..HealthCheck::default() };
        assert!(timed_none.check().is_err());
        assert!(HealthCheck { interval_ms: Some(u64::MAX), ..HealthCheck::default() }.check().is_err());
    }
}

//! The arguments of a new box about the check of its health.

use boxlite::HealthCheck;
use clap::Args;

use super::values::milliseconds;

/// How the health of the new box is checked.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Check the box's health by this command of a shell, which succeeds in a healthy box [default: the image's]
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two probes, and before the first [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    health_interval: Option<u64>,
    /// Time after which a probe is killed and has failed [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    health_timeout: Option<u64>,
    /// Failures in a row that make the box unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count [default: the image's, or none]
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    health_start_period: Option<u64>,
    /// Time between two probes in the start period, until one succeeds [default: the image's, or 5s]
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    health_start_interval: Option<u64>,
    /// Do not check the box's health, whatever its image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries",
                                      "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// Returns what is asked for; `None` leaves everything to the image.
    pub(super) fn check(self) -> Option<HealthCheck> {
        let test = match self.health_cmd {
            _ if self.no_healthcheck => vec!["NONE".to_owned()],
            Some(command) => vec!["CMD-SHELL".to_owned(), command],
            None => Vec::new(),
        };
        let check = HealthCheck {
            test,
            interval_ms: self.health_interval,
            timeout_ms: self.health_timeout,
            start_period_ms: self.health_start_period,
            start_interval_ms: self.health_start_interval,
            retries: self.health_retries,
        };
        (check != HealthCheck::default()).then_some(check)
    }
}

//! Options of container tools that mean little or nothing in a virtual machine, accepted so that scripts keep working.

use clap::Args;

/// Options that every tool for containers has.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// A box has an init of its own
    #[arg(long, hide = true)]
    init: bool,
    /// Root of a box has every capability of its machine
    #[arg(long, hide = true)]
    privileged: bool,
    /// As for `privileged`
    #[arg(long, hide = true, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Has no effect
    #[arg(long, hide = true, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Has no effect
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Has no effect: nothing is shared with the host or with other boxes
    #[arg(long, hide = true, value_name = "MODE")]
    ipc: Option<String>,
    /// As for `ipc`
    #[arg(long, hide = true, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Has no effect: the box's own kernel deals with its memory
    #[arg(long, hide = true, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// As for `memory_swap`
    #[arg(long, hide = true, value_name = "N", allow_hyphen_values = true)]
    memory_swappiness: Option<String>,
    /// As for `memory_swap`
    #[arg(long, hide = true, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// As for `memory_swap`
    #[arg(long, hide = true)]
    oom_kill_disable: bool,
    /// As for `memory_swap`
    #[arg(long, hide = true, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<String>,
    /// Has no effect: too many processes hurt the box alone
    #[arg(long, hide = true, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// Has no effect: boxes share processors evenly
    #[arg(short = 'c', long, hide = true, value_name = "N")]
    cpu_shares: Option<String>,
    /// Has no effect: a box has one log, bounded by the settings
    #[arg(long, hide = true, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// As for `log_driver`
    #[arg(long, hide = true, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Has no effect: every port is open to the boxes of the network
    #[arg(long, hide = true, value_name = "PORT")]
    expose: Vec<String>,
    /// Only the host's own platform is to be had
    #[arg(long, hide = true, value_name = "OS/ARCH", value_parser = own_platform)]
    platform: Option<String>,
}

impl ContainerArgs {
    /// Returns what to say of options that should change something and do not, in one line for each reason.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let reasons = [
            (
                vec![
                    ("--cap-drop", !self.cap_drop.is_empty()),
                    ("--security-opt", !self.security_opt.is_empty()),
                ],
                "a box's bounds are those of its virtual machine, and its root has every capability inside",
            ),
            (
                vec![
                    ("--memory-swap", self.memory_swap.is_some()),
                    ("--memory-swappiness", self.memory_swappiness.is_some()),
                    ("--memory-reservation", self.memory_reservation.is_some()),
                    ("--oom-kill-disable", self.oom_kill_disable),
                    ("--oom-score-adj", self.oom_score_adj.is_some()),
                    ("--pids-limit", self.pids_limit.is_some()),
                    ("--cpu-shares", self.cpu_shares.is_some()),
                    ("--ipc", self.ipc.is_some()),
                    ("--cgroupns", self.cgroupns.is_some()),
                ],
                "a box has a kernel of its own; -m and --cpus bound what it takes of the host",
            ),
            (
                vec![("--log-driver", self.log_driver.is_some()), ("--log-opt", !self.log_opt.is_empty())],
                "`boxlite logs` shows a box's output, and the setting main_log_max bounds it",
            ),
            (
                vec![("--expose", !self.expose.is_empty())],
                "every port of a box is open to the boxes of its networks; -p publishes one on the host",
            ),
        ];
        reasons.into_iter().filter_map(|(options, reason)| without_effect(&options, reason))
    }
}

/// Says of the options that are given why they have no effect.
fn without_effect(options: &[(&str, bool)], reason: &str) -> Option<String> {
    let given: Vec<&str> =
        options.iter().filter(|(_, is_given)| *is_given).map(|&(option, _)| option).collect();
    let (last, others) = given.split_last()?;
    let (given, have) = match others {
        [] => ((*last).to_owned(), "has"),
        others => (format!("{} and {last}", others.join(", ")), "have"),
    };
    Some(format!("boxlite: note: {given} {have} no effect: {reason}"))
}

/// Reads `linux/amd64` on a host of that architecture, and refuses every other platform.
fn own_platform(text: &str) -> Result<String, String> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    let is_variant = |rest: &str| rest.is_empty() || rest.starts_with('/');
    match text.strip_prefix(own) {
        Some(rest) if is_variant(rest) => Ok(text.to_owned()),
        _ => Err(format!("boxes run on the host's own processors, which are {own}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_s_platform_is_to_be_had() {
        #[cfg(target_arch = "x86_64")]
        let (own, other) = ("linux/amd64", "linux/arm64");
        #[cfg(target_arch = "aarch64")]
        let (own, other) = ("linux/arm64", "linux/amd64");
        assert!(own_platform(own).is_ok() && own_platform(&format!("{own}/v2")).is_ok());
        assert!(own_platform(other).is_err() && own_platform(&format!("{own}x")).is_err());
        assert!(own_platform("windows/amd64").is_err());
    }
}

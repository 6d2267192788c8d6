//! The arguments of a new box about the names, limits and kernel inside it, and about ports of the host.

use std::str::FromStr;

use boxlite::{AddedHost, BoxOptions};
use clap::Args;

/// Names, limits and the kernel of the new box.
#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    /// Publish every port that the image exposes at a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Let the box reach a TCP port of the host's loopback, at 10.0.2.2 or a name that leads to host-gateway
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    allow_host: Vec<u16>,
    /// Resolve a name in the box; host-gateway stands for the host, of which --allow-host names the ports
    #[arg(long, value_name = "NAME:IP|NAME:host-gateway")]
    add_host: Vec<String>,
    /// Name server of the box instead of the host's
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// Domain below which the box looks for short names, or `.` for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Limit each process of the box, as in nofile=1024:4096
    #[arg(long = "ulimit", value_name = "TYPE=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// Set a parameter of the box's kernel, as in net.core.somaxconn=1024
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    sysctls: Vec<String>,
}

impl GuestArgs {
    /// Returns `options` with these.
    pub(super) fn applied_to(self, options: BoxOptions) -> BoxOptions {
        BoxOptions {
            publish_all: self.publish_all,
            allow_host: self.allow_host,
            add_host: self.add_host,
            dns: self.dns,
            dns_search: self.dns_search,
            ulimits: self.ulimits,
            sysctls: self.sysctls,
            ..options
        }
    }

    /// Returns what to say of a name for the host that no port of it goes with; `None` where there is nothing.
    pub(crate) fn note(&self) -> Option<String> {
        let names: Vec<&str> = self
            .add_host
            .iter()
            .filter_map(|text| text.split_once([':', '=']))
            .filter(|(_, target)| *target == AddedHost::HOST)
            .map(|(name, _)| name)
            .collect();
        (!names.is_empty() && self.allow_host.is_empty()).then(|| {
            format!(
                "boxlite: note: {} leads to the host, of which the box reaches no port: --allow-host PORT lets it reach \
                 one of the host's loopback",
                names.join(", ")
            )
        })
    }
}

/// `--cpus`: how many processors the guest has, and, for a fraction, how much of them it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processors {
    pub(crate) count: u32,
    /// In hundredths of one processor.
    pub(crate) limit: Option<u32>,
}

impl FromStr for Processors {
    type Err = String;

    /// Reads `2`, `1.5` or `0.25`, of which two digits after the point count.
    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: u32 = 255;
        let wrong =
            || format!("`{text}` is not a number of processors from 0.05 to {MOST}, such as 2 or 0.5");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
            return Err(wrong());
        }
        let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
        if fraction.trim_end_matches('0').len() > 2 {
            return Err(format!("{}: more than two digits after the point", wrong()));
        }
        let hundredths: u32 = format!("{fraction:0<2}")[..2].parse().map_err(|_| wrong())?;
        let total =
            whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths)).ok_or_else(wrong)?;
        if !(5..=MOST * 100).contains(&total) {
            return Err(wrong());
        }
        Ok(Self { count: total.div_ceil(100), limit: (hundredths > 0).then_some(total) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_processors_are_whole_ones_with_a_limit() {
        let read = |text: &str| text.parse::<Processors>().map(|read| (read.count, read.limit));
        for (text, expected) in [
            ("1", (1, None)),
            ("2.0", (2, None)),
            ("0.5", (1, Some(50))),
            (".25", (1, Some(25))),
            ("1.5", (2, Some(150))),
            ("1.500", (2, Some(150))),
            ("254.99", (255, Some(25499))),
            ("255", (255, None)),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for text in
            ["", ".", "0", "0.04", "0.001", "-1", "+1", "1e3", "1,5", "255.01", "99999999999", "nan", "1.555"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

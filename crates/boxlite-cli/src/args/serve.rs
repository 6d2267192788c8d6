//! `serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use boxlite::settings::parse_duration;
use clap::Args;

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; any but a loopback address needs --api-key-file
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS", value_parser = address)]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, default_value_t = 8100)]
    pub(crate) port: u16,
    /// Directory below which requests may name paths of this host, as images or volumes; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_path: Vec<PathBuf>,
    /// How often to collect garbage, such as 1h or 30m, or `off`
    #[arg(long, default_value = "1h", value_name = "INTERVAL", value_parser = interval)]
    pub(crate) gc_interval: Interval,
}

/// How often something happens, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

fn address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| format!("`{text}` is no IP address"))
}

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("an interval is longer than nothing; `off` switches it off".to_owned()),
        Ok(interval) => Ok(Interval(Some(interval))),
        Err(error) => Err(error.to_string()),
    }
}

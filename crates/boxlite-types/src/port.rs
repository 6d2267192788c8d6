//! Published ports, written as Docker's users write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The transport of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of the host that leads to one port of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortForward {
    /// The address on the host.
    pub bind: Ipv4Addr,
    /// The port on the host; 0 until a free one is chosen.
    pub host: u16,
    /// The port in the box.
    pub guest: u16,
    /// The transport.
    pub protocol: Protocol,
}

impl PortForward {
    /// The default address on the host: loopback, so that a box is not published to the network by accident.
    ///
    /// Docker's default is `0.0.0.0`; write `-p 0.0.0.0:8080:80` for that.
    pub const DEFAULT_BIND: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// Whether both can't be listened on at once.
    fn overlaps(&self, other: &Self) -> bool {
        self.host != 0
            && self.host == other.host
            && self.protocol == other.protocol
            && (self.bind == other.bind || self.bind.is_unspecified() || other.bind.is_unspecified())
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}->{}/{}", self.bind, self.host, self.guest, self.protocol)
    }
}

/// Parses `[[IP:][HOST]:]BOX[/tcp|/udp]`, where `HOST` and `BOX` are ports or ranges of equal length.
///
/// Without `HOST` (or with 0) the host's port is chosen at start. Malformed text is [`crate::ErrorKind::InvalidInput`];
/// IPv6 addresses and SCTP are [`crate::ErrorKind::Unsupported`].
pub fn parse_ports(text: &str) -> Result<Vec<PortForward>> {
    parse(text).map_err(|error| error.while_doing(format_args!("port {text:?}")))
}

fn parse(text: &str) -> Result<Vec<PortForward>> {
    let (rest, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, "sctp")) => return Err(Error::unsupported("sctp can't be published, only tcp and udp")),
        Some((_, other)) => {
            return Err(Error::invalid(format!("{other:?} is not a protocol, write tcp or udp")));
        }
    };
    if rest.starts_with('[') {
        return Err(Error::unsupported("IPv6 addresses can't be published on, only IPv4"));
    }
    let fields: Vec<&str> = rest.split(':').collect();
    let (bind, host, guest) = match fields[..] {
        [guest] => ("", "", guest),
        [host, guest] => ("", host, guest),
        [bind, host, guest] => (bind, host, guest),
        _ => return Err(Error::invalid("expected [[IP:][HOST]:]BOX[/tcp|/udp]")),
    };
    let bind = match bind {
        "" if fields.len() < 3 => PortForward::DEFAULT_BIND,
        _ => match IpAddr::from_str(bind) {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => {
                return Err(Error::unsupported("IPv6 addresses can't be published on, only IPv4"));
            }
            Err(_) => return Err(Error::invalid(format!("{bind:?} is not an IPv4 address"))),
        },
    };
    let guests = range("box", guest)?;
    if *guests.start() == 0 {
        return Err(Error::invalid("port 0 of the box can't be published"));
    }
    if host.is_empty() || host == "0" {
        return Ok(guests.map(|guest| PortForward { bind, host: 0, guest, protocol }).collect());
    }
    let hosts = range("host", host)?;
    if *hosts.start() == 0 {
        return Err(Error::invalid("a range can't begin at port 0 of the host"));
    }
    if hosts.len() != guests.len() {
        return Err(Error::invalid(format!(
            "{} ports of the host for {} ports of the box; both ranges must have one length",
            hosts.len(),
            guests.len()
        )));
    }
    Ok(hosts.zip(guests).map(|(host, guest)| PortForward { bind, host, guest, protocol }).collect())
}

fn range(whose: &str, text: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(whose, first)?, number(whose, last)?);
    if first > last {
        return Err(Error::invalid(format!("{whose} range {text} runs backwards")));
    }
    Ok(first..=last)
}

fn number(whose: &str, text: &str) -> Result<u16> {
    if !is_digits(text) {
        return Err(Error::invalid(format!("{whose} port {text:?} is not a number")));
    }
    text.parse().map_err(|_| Error::invalid(format!("{whose} port {text} is above 65535")))
}

/// Whether `text` is a number of digits alone; `parse` would take "+80".
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refuses a set of ports in which two want the same port of the host.
pub fn refuse_overlaps(ports: &[PortForward]) -> Result<()> {
    let mut sorted: Vec<&PortForward> = ports.iter().collect();
    sorted.sort_unstable_by_key(|port| (port.protocol, port.host));
    for group in sorted.chunk_by(|a, b| (a.protocol, a.host) == (b.protocol, b.host)) {
        for (index, port) in group.iter().enumerate() {
            if let Some(other) = group[..index].iter().find(|other| other.overlaps(port)) {
                return Err(Error::invalid(format!(
                    "ports {other} and {port} want the same port of the host"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;

//! Destinations that a box with a list of them may reach.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::port::is_digits;
use crate::{Error, Result};

/// Most rules of a box.
pub const MAX_ALLOW_RULES: usize = 256;

/// The longest name of the domain name system, in its usual spelling.
const MAX_NAME: usize = 253;

/// Ports of name servers, plain and over TLS.
pub const NAME_SERVER_PORTS: [u16; 2] = [53, 853];

/// One destination of a list of those that a box may reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AllowRule {
    /// Which machines.
    pub target: AllowTarget,
    /// The one port of them; `None` allows every port.
    pub port: Option<u16>,
}

/// The machines of an [`AllowRule`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllowTarget {
    /// The one with this name, in lower case and without a dot at its end.
    Name(String),
    /// All with names below this one, which is not itself among them.
    Below(String),
    /// Those of an address block.
    Block {
        /// Its first address.
        address: Ipv4Addr,
        /// How many leading bits all its addresses share, at most 32.
        prefix: u8,
    },
}

impl AllowRule {
    /// Reads the list of a box.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed rule or too many of them, `Unsupported` for IPv6.
    pub fn parse_list(texts: &[String]) -> Result<Vec<Self>> {
        if texts.len() > MAX_ALLOW_RULES {
            return Err(Error::invalid(format!(
                "a box has at most {MAX_ALLOW_RULES} allowed destinations, and {} were given; combine them as blocks or *.NAME",
                texts.len()
            )));
        }
        texts.iter().map(|text| text.parse()).collect()
    }

    /// Whether it allows this port of its machines.
    pub fn allows_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

impl AllowTarget {
    /// Whether a name, in lower case and without a dot at its end, is one of this target's.
    pub fn names(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Block { .. } => false,
        }
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            AllowTarget::Name(name) => write!(f, "{name}")?,
            AllowTarget::Below(parent) => write!(f, "*.{parent}")?,
            AllowTarget::Block { address, prefix: 32 } => write!(f, "{address}")?,
            AllowTarget::Block { address, prefix } => write!(f, "{address}/{prefix}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for AllowRule {
    type Err = Error;

    /// Parses `NAME[:PORT]`, `*.NAME[:PORT]` or `ADDRESS[/PREFIX][:PORT]`.
    ///
    /// # Errors
    /// `InvalidInput` for malformed text, `Unsupported` for IPv6.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|error| error.while_doing(format_args!("allowed destination {text:?}")))
    }
}

fn parse(text: &str) -> Result<AllowRule> {
    if text.starts_with('[') || text.matches(':').count() > 1 {
        return Err(Error::unsupported("boxes have no IPv6; write an IPv4 address, a block or a name"));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, None),
    };
    let last_label = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or(host);
    // No name of the public system ends in a number, and a mistyped address must not become one.
    if host.contains('/') || is_digits(last_label) {
        return Ok(AllowRule { target: parse_block(host)?, port });
    }
    if port.is_some_and(|port| NAME_SERVER_PORTS.contains(&port)) {
        return Err(Error::invalid(
            "a name server is allowed by its address; boxes resolve names through their own resolver",
        ));
    }
    let target = match host.strip_prefix("*.") {
        Some(parent) => AllowTarget::Below(parse_name(parent)?),
        None => AllowTarget::Name(parse_name(host)?),
    };
    Ok(AllowRule { target, port })
}

fn parse_port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port @ 1..) if is_digits(text) => Ok(port),
        _ => Err(Error::invalid(format!("{text:?} is not a port from 1 to 65535"))),
    }
}

fn parse_block(text: &str) -> Result<AllowTarget> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let not_one = || Error::invalid(format!("{text:?} is not an IPv4 address or block, such as 10.1.0.0/16"));
    let address: Ipv4Addr = address.parse().map_err(|_| not_one())?;
    let prefix: u8 =
        prefix.parse().ok().filter(|bits| is_digits(prefix) && *bits <= 32).ok_or_else(not_one)?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let first = Ipv4Addr::from_bits(address.to_bits() & mask);
    if first != address {
        let message = format!("{text:?} has bits beyond its prefix; write {first}/{prefix}");
        return Err(Error::invalid(message));
    }
    Ok(AllowTarget::Block { address, prefix })
}

fn parse_name(text: &str) -> Result<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() > MAX_NAME || !name.split('.').all(is_label) {
        return Err(Error::invalid(format!(
            "{text:?} is not a name: labels of letters, digits and hyphens between dots; other scripts in their xn-- form"
        )));
    }
    Ok(name)
}

#[cfg(test)]
#[path = "allow_rule_tests.rs"]
mod tests;

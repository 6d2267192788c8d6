//! The options of a box on names, limits and the kernel inside it, written as Docker's users write them.

use std::net::{IpAddr, Ipv4Addr};

use boxlite_proto::{Sysctl, Ulimit, UlimitKind};

use crate::port::is_digits;
use crate::{Error, Result};

/// The most lines that are added to `/etc/hosts`.
pub const MAX_ADDED_HOSTS: usize = 256;
/// The most ports of the host's loopback that one box reaches.
pub const MAX_HOST_PORTS: usize = 64;
/// Name servers that a resolver asks at most: glibc and musl ignore further ones.
pub const MAX_NAME_SERVERS: usize = 3;
/// Search domains, of which a resolver asks one after another.
const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_SYSCTLS: usize = 256;
/// The kernel takes at most a page at once.
const MAX_SYSCTL_VALUE: usize = 4000;
/// The longest name of the domain name system, in bytes.
const MAX_NAME: usize = 253;
/// The longest part of a name between dots, in bytes.
const MAX_LABEL: usize = 63;

/// Where a name of `--add-host` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddedHostTarget {
    /// To this address.
    Address(IpAddr),
    /// To the host that runs the box, by the address under which the box reaches it.
    Host,
}

/// A name that the box resolves by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedHost {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub target: AddedHostTarget,
}

impl AddedHost {
    /// The word for the host itself, in place of an address.
    pub const HOST: &'static str = "host-gateway";

    /// Parses a list of `NAME:IP` or `NAME=IP`, where `IP` may be [`AddedHost::HOST`].
    ///
    /// # Errors
    /// `InvalidInput` for what is malformed, or too many.
    pub fn parse_list(texts: &[String]) -> Result<Vec<Self>> {
        bounded("added hosts", texts.len(), MAX_ADDED_HOSTS)?;
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("added host {text:?}: {why}"));
        let separator = text.find([':', '=']).ok_or_else(|| invalid("expected NAME:IP"))?;
        let (name, address) = (&text[..separator], &text[separator + 1..]);
        if !is_domain(name) {
            return Err(invalid("the name has letters, digits, `-` and `_`, with dots between its parts"));
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let target = match bare.parse() {
            Ok(address) => AddedHostTarget::Address(address),
            Err(_) if address == Self::HOST => AddedHostTarget::Host,
            Err(_) => {
                return Err(invalid(&format!("{address:?} is neither an IP address nor {}", Self::HOST)));
            }
        };
        Ok(Self { name: name.to_owned(), target })
    }
}

/// Parses the addresses of name servers.
///
/// # Errors
/// `InvalidInput` for what is malformed or said twice, and for more than a resolver asks; `Unsupported` for IPv6.
pub fn parse_name_servers(texts: &[String]) -> Result<Vec<Ipv4Addr>> {
    bounded("name servers", texts.len(), MAX_NAME_SERVERS)?;
    let parse = |text: &String| match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => {
            Err(Error::unsupported(format!("name server {text}: a box's network has no IPv6, only IPv4")))
        }
        Err(_) => Err(Error::invalid(format!("name server {text:?} is not an IP address"))),
    };
    texts.iter().map(parse).collect()
}

/// Checks the domains below which the box's resolver looks for short names; a single `.` stands for none.
///
/// # Errors
/// `InvalidInput` for what is malformed, or too many.
pub fn parse_search_domains(texts: &[String]) -> Result<Vec<String>> {
    bounded("search domains", texts.len(), MAX_SEARCH_DOMAINS)?;
    if texts == ["."] {
        return Ok(Vec::new());
    }
    let parse = |text: &String| match text.strip_suffix('.').unwrap_or(text) {
        domain if is_domain(domain) => Ok(domain.to_owned()),
        _ => Err(Error::invalid(format!("search domain {text:?} is not a domain name"))),
    };
    texts.iter().map(parse).collect()
}

/// Parses a list of `TYPE=SOFT[:HARD]`; without `HARD` it is `SOFT`, and `-1` or `unlimited` is none.
///
/// # Errors
/// `InvalidInput` for what is malformed or given twice, and a soft limit above its hard one.
pub fn parse_ulimits(texts: &[String]) -> Result<Vec<Ulimit>> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for text in texts {
        let limit = parse_ulimit(text).map_err(|error| error.while_doing(format_args!("limit {text:?}")))?;
        if limits.iter().any(|other| other.kind == limit.kind) {
            return Err(Error::invalid(format!("limit {text:?}: its type is given a second time")));
        }
        limits.push(limit);
    }
    Ok(limits)
}

fn parse_ulimit(text: &str) -> Result<Ulimit> {
    let (name, values) = text.split_once('=').ok_or_else(|| Error::invalid("expected TYPE=SOFT[:HARD]"))?;
    let kind = UlimitKind::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| {
        let known: Vec<&str> = UlimitKind::NAMES.iter().map(|(name, _)| *name).collect();
        Error::invalid(format!("{name:?} is none of {}", known.join(", ")))
    })?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        _ if is_digits(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::invalid(format!("{text} is too large"))),
        },
        _ => Err(Error::invalid(format!("{text:?} is neither a number nor unlimited"))),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    // `None` is the largest.
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(Error::invalid("the soft limit is above the hard one"));
    }
    Ok(Ulimit { kind, soft, hard })
}

/// Parses a list of `NAME=VALUE`, where `NAME` has dots between its parts, or slashes as in `/proc/sys`.
///
/// # Errors
/// `InvalidInput` for what is malformed or given twice.
pub fn parse_sysctls(texts: &[String]) -> Result<Vec<Sysctl>> {
    bounded("kernel parameters", texts.len(), MAX_SYSCTLS)?;
    let mut parsed: Vec<Sysctl> = Vec::new();
    for text in texts {
        let invalid = |why: &str| Error::invalid(format!("kernel parameter {text:?}: {why}"));
        let (name, value) = text.split_once('=').ok_or_else(|| invalid("expected NAME=VALUE"))?;
        // As in sysctl(8): a slash before any dot makes dots parts of names, such as that of an interface.
        let has_slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
        let swap = |c: char| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        let path: String = if has_slashes { name.to_owned() } else { name.chars().map(swap).collect() };
        let fit = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte))
        };
        if !path.contains('/') || !path.split('/').all(fit) {
            return Err(invalid("the name is not one such as net.core.somaxconn"));
        }
        let is_line = !value.chars().any(|c| c.is_control() && c != '\t');
        if value.is_empty() || value.len() > MAX_SYSCTL_VALUE || !is_line {
            return Err(invalid("the value is empty, too long, or more than one line"));
        }
        if parsed.iter().any(|other| other.path == path) {
            return Err(invalid("it is given a second time"));
        }
        parsed.push(Sysctl { path, value: value.to_owned() });
    }
    Ok(parsed)
}

/// Checks the ports of the host's loopback that the box may reach.
///
/// # Errors
/// `InvalidInput` for port 0, a port that is named twice, and too many.
pub fn check_host_ports(ports: &[u16]) -> Result<()> {
    bounded("ports of the host", ports.len(), MAX_HOST_PORTS)?;
    for (index, port) in ports.iter().enumerate() {
        if *port == 0 {
            return Err(Error::invalid("port 0 of the host is not a port"));
        }
        if ports[..index].contains(port) {
            return Err(Error::invalid(format!("port {port} of the host is allowed a second time")));
        }
    }
    Ok(())
}

fn bounded(what: &str, count: usize, most: usize) -> Result<()> {
    if count > most {
        return Err(Error::invalid(format!("{count} {what} are more than the {most} that a box may have")));
    }
    Ok(())
}

/// Whether `text` may name a machine: letters, digits, `-` and `_`, with dots between parts.
fn is_domain(text: &str) -> bool {
    let fit = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_NAME && text.split('.').all(fit)
}

#[cfg(test)]
#[path = "guest_options_tests.rs"]
mod tests;

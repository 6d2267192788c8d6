//! Networks that boxes join, in which they reach each other by name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result, is_volume_name};

/// Names that `--network` has another meaning for.
const RESERVED_NAMES: [&str; 5] = ["none", "user", "default", "bridge", "host"];

/// The most aliases of a box in its network.
const MAX_ALIASES: usize = 16;

/// The longest alias, in bytes: a label of the domain name system.
const MAX_ALIAS: usize = 63;

/// The most networks of a box.
const MAX_NETWORKS: usize = 8;

/// The most boxes of a network, whether or not they run: each holds a channel to every other one that does.
pub const MAX_MEMBERS: usize = 128;

/// Refuses a name that no network can have: a volume's rule holds for it, and `none`, `user` and such are taken.
///
/// # Errors
/// `InvalidInput`.
pub fn check_network_name(name: &str) -> Result<()> {
    if !is_volume_name(name) {
        return Err(Error::invalid(format!(
            "{name:?} is not a name for a network: a letter or digit, then letters, digits, `_`, `.` and `-`, 128 at most"
        )));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(Error::invalid(format!(
            "a network cannot be called '{name}', which --network has another meaning for"
        )));
    }
    Ok(())
}

/// Refuses aliases that no resolver would ask for.
///
/// # Errors
/// `InvalidInput` for more than 16, and for one that is not a label: up to 63 letters, digits, `-` and `_`, dots between such.
pub fn check_aliases(aliases: &[String]) -> Result<()> {
    if aliases.len() > MAX_ALIASES {
        return Err(Error::invalid(format!("a box has at most {MAX_ALIASES} aliases in its network")));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_letter);
    match aliases.iter().find(|alias| alias.len() > MAX_ALIAS || !alias.split('.').all(is_label)) {
        Some(alias) => Err(Error::invalid(format!(
            "{alias:?} is not an alias: up to {MAX_ALIAS} letters, digits, `-` and `_`, with dots between its parts"
        ))),
        None => Ok(()),
    }
}

/// A network that a box joins, and how it is found there.
///
/// Its text is `NAME`, or with options `NAME:ip=ADDRESS,alias=NAME` as Podman writes it, or `name=NAME,ip=ADDRESS,alias=NAME` as
/// Docker does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkJoin {
    /// The network's name.
    pub name: String,
    /// The box's other names in it; see [`check_aliases`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The box's address in it; a free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
}

impl NetworkJoin {
    /// Joins the network `name` under a free address and no other names.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Refuses networks that no box can join together.
    ///
    /// # Errors
    /// `InvalidInput` for more than 8, for one that is named twice, and for names and aliases that cannot be.
    pub fn check_all(joins: &[Self]) -> Result<()> {
        if joins.len() > MAX_NETWORKS {
            return Err(Error::invalid(format!("a box joins at most {MAX_NETWORKS} networks")));
        }
        for (index, join) in joins.iter().enumerate() {
            check_network_name(&join.name)?;
            check_aliases(&join.aliases)?;
            if joins[..index].iter().any(|earlier| earlier.name == join.name) {
                return Err(Error::invalid(format!("network '{}' is named twice", join.name)));
            }
        }
        Ok(())
    }
}

impl FromStr for NetworkJoin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, options) = match text.split_once(':') {
            Some((name, options)) => (Some(name), options),
            None if text.contains('=') => (None, text),
            None => (Some(text), ""),
        };
        let mut join = Self::named(name.unwrap_or_default());
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let wrong = |why: &str| Error::invalid(format!("'{option}' of network '{text}': {why}"));
            match option.split_once('=') {
                Some(("name", value)) if name.is_none() => value.clone_into(&mut join.name),
                Some(("alias", value)) => join.aliases.push(value.to_owned()),
                Some(("ip", value)) => {
                    join.address = Some(value.parse().map_err(|_| wrong("that is not an IPv4 address"))?);
                }
                _ => return Err(wrong("a box joins with ip=ADDRESS and alias=NAME alone")),
            }
        }
        check_network_name(&join.name)?;
        check_aliases(&join.aliases)?;
        Ok(join)
    }
}

/// A block of IPv4 addresses, such as `10.89.0.0/24`; it is that text in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    first: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The block of `prefix` leading bits (at most 32) of `address`.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { first: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// Its first address.
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Its leading bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its last address.
    pub const fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.prefix))
    }

    /// Whether `address` lies in it.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.first.to_bits()
    }

    /// Whether some address lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses that boxes can have: all but the first two, of which tools take the second for a gateway, and the last.
    pub fn members(self) -> impl Iterator<Item = Ipv4Addr> {
        let range = self.first.to_bits().saturating_add(2)..self.last().to_bits();
        range.map(Ipv4Addr::from_bits)
    }
}

const fn mask(prefix: u8) -> u32 {
    match 32_u32.checked_sub(prefix as u32) {
        Some(32) | None => 0,
        Some(low) => u32::MAX << low,
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// Reads `ADDRESS/PREFIX`, of which the address has no bits beyond the prefix.
    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            |why: &str| Error::invalid(format!("'{text}' is not a subnet such as 10.89.0.0/24: {why}"));
        let (address, prefix) = text.split_once('/').ok_or_else(|| wrong("it has no prefix"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong("that is not an IPv4 address"))?;
        let digits = (1..=2).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|&prefix| digits && prefix <= 32)
            .ok_or_else(|| wrong("the prefix"))?;
        let subnet = Self::new(address, prefix);
        if subnet.first != address {
            return Err(wrong(&format!("did you mean {subnet}?")));
        }
        Ok(subnet)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A new network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkOptions {
    /// Its name, unique in the home; see [`check_network_name`].
    pub name: String,
    /// Its addresses, from 6 (`/29`) to 65,536 (`/16`); a free block of 10.89.0.0/16 when absent.
    pub subnet: Option<Subnet>,
    /// Its boxes reach each other and nothing else.
    pub internal: bool,
    /// Labels, which mean nothing to boxlite.
    pub labels: BTreeMap<String, String>,
}

/// The contents of `network.json` in a network's directory, written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDescription {
    /// Counts up with every change that older builds must not meet.
    pub format: u32,
    /// 32 lower-case hex digits, never used again.
    pub id: String,
    /// Its name, which is that of its directory as well.
    pub name: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// Whether its boxes reach each other and nothing else.
    pub internal: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl NetworkDescription {
    /// The format that this build writes.
    pub const FORMAT: u32 = 1;
}

/// A network that a box is a member of, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's name.
    pub network: String,
    /// The box's address in it, which stays for as long as the box is a member.
    pub address: Ipv4Addr,
}

/// A network, as it was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// Whether its boxes reach each other and nothing else.
    pub internal: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its boxes, whether or not they run, by name.
    pub boxes: Vec<NetworkBox>,
}

/// A box of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBox {
    /// The box's name, by which the others reach it.
    pub name: String,
    /// The box's id.
    pub id: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its other names in the network.
    pub aliases: Vec<String>,
    /// Whether it runs.
    pub running: bool,
}

/// The outcome of a prune of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPrune {
    /// Names of the networks that were removed.
    pub removed: Vec<String>,
    /// Why others could not be removed, a sentence each.
    pub failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_addresses() {
        let subnet: Subnet = "10.89.3.0/29".parse().unwrap();
        assert_eq!(
            (subnet.to_string().as_str(), subnet.last()),
            ("10.89.3.0/29", Ipv4Addr::new(10, 89, 3, 7))
        );
        let members: Vec<u8> = subnet.members().map(|address| address.octets()[3]).collect();
        assert_eq!(members, [2, 3, 4, 5, 6]);
        assert!(
            subnet.contains(Ipv4Addr::new(10, 89, 3, 7)) && !subnet.contains(Ipv4Addr::new(10, 89, 3, 8))
        );
        let [wide, other] = ["10.89.0.0/16", "10.90.0.0/16"].map(|text| text.parse::<Subnet>().unwrap());
        assert!(
            wide.overlaps(subnet)
                && subnet.overlaps(wide)
                && !other.overlaps(subnet)
                && !subnet.overlaps(other)
        );
        assert_eq!(Subnet::new(Ipv4Addr::BROADCAST, 32).members().count(), 0);
        assert_eq!(serde_json::to_string(&wide).unwrap(), r#""10.89.0.0/16""#);
        assert_eq!(serde_json::from_str::<Subnet>(r#""10.89.0.0/16""#).unwrap(), wide);
        for text in [
            "",
            "10.89.0.0",
            "10.89.0.1/24",
            "10.89.0.0/33",
            "10.89.0.0/+4",
            "10.89.0/24",
            "::/8",
            "10.0.0.0/",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_of_networks_are_no_paths_and_mean_nothing_else() {
        for name in ["back", "a.b-c_1"] {
            check_network_name(name).unwrap();
        }
        for name in ["", "none", "user", "host", "bridge", "default", "../x", "a b", "-a"] {
            assert!(check_network_name(name).is_err(), "{name:?}");
        }
        check_aliases(&["db".into(), "db.local".into()]).unwrap();
        for alias in ["", "a..b", ".a", "a b", "ä", &"x".repeat(64)] {
            assert!(check_aliases(&[alias.to_owned()]).is_err(), "{alias:?}");
        }
        assert!(check_aliases(&vec!["a".to_owned(); MAX_ALIASES + 1]).is_err());
    }

    #[test]
    fn a_network_is_joined_as_docker_and_podman_write_it() {
        let whole = NetworkJoin {
            name: "back".into(),
            aliases: vec!["db".into(), "sql".into()],
            address: Some(Ipv4Addr::new(10, 89, 0, 7)),
        };
        for (text, join) in [
            ("back", NetworkJoin::named("back")),
            ("back:", NetworkJoin::named("back")),
            ("name=back", NetworkJoin::named("back")),
            ("back:ip=10.89.0.7,alias=db,alias=sql", whole.clone()),
            ("alias=db,name=back,alias=sql,ip=10.89.0.7", whole.clone()),
        ] {
            assert_eq!(text.parse::<NetworkJoin>().unwrap(), join, "{text}");
        }
        for text in [
            "",
            "none",
            ":ip=10.89.0.7",
            "alias=db",
            "back:name=front",
            "back:ip=10.89",
            "back:mac=02:00:00:00:00:01",
            "back:alias",
            "back:alias=a b",
            "name=../x",
        ] {
            assert!(text.parse::<NetworkJoin>().is_err(), "{text:?}");
        }
        let joins = |names: &[&str]| names.iter().map(|name| NetworkJoin::named(*name)).collect::<Vec<_>>();
        NetworkJoin::check_all(&joins(&["a", "b"])).unwrap();
        assert!(NetworkJoin::check_all(&joins(&["a", "b", "a"])).is_err(), "twice");
        assert!(NetworkJoin::check_all(&joins(&["user"])).is_err());
        let many: Vec<_> = (0..=MAX_NETWORKS).map(|n| NetworkJoin::named(format!("n{n}"))).collect();
        assert!(NetworkJoin::check_all(&many).is_err() && NetworkJoin::check_all(&many[1..]).is_ok());
    }
}

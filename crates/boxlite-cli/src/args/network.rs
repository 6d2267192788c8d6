//! The arguments of a new box about the network that it joins.

use std::net::Ipv4Addr;
use std::str::FromStr;

use boxlite::{BoxOptions, NetworkMode, check_network_name};
use clap::Args;

/// What the new box is connected to.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// none for no network card, user for the world outside alone, or the name of a network that the box joins as well
    #[arg(long, alias = "net", value_name = "none|user|NETWORK", default_value = "user")]
    network: NetworkArg,
    /// Another name of the box in its network
    #[arg(long = "network-alias", alias = "net-alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Address of the box in its network [default: a free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
}

/// `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NetworkArg {
    /// No network card.
    None,
    /// Outbound, DNS and forwarded ports.
    User,
    /// The same, unless the network is internal, and the other boxes of that network.
    Named(String),
}

impl FromStr for NetworkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "user" | "bridge" | "default" => Ok(Self::User),
            "host" => Err("a box has a network of its own, never the host's; -p publishes its ports, --allow-host PORT lets it reach one of the host's".into()),
            name => {
                check_network_name(name).map_err(|error| error.to_string())?;
                Ok(Self::Named(name.to_owned()))
            }
        }
    }
}

impl NetworkArgs {
    /// Returns `options` with these.
    pub(super) fn applied_to(self, options: BoxOptions) -> BoxOptions {
        let (network, network_name) = match self.network {
            NetworkArg::None => (NetworkMode::None, None),
            NetworkArg::User => (NetworkMode::User, None),
            NetworkArg::Named(name) => (NetworkMode::User, Some(name)),
        };
        BoxOptions {
            network,
            network_name,
            network_aliases: self.aliases,
            network_address: self.ip,
            ..options
        }
    }
}

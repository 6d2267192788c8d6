//! The arguments of a box about the networks that it joins.

use std::net::Ipv4Addr;
use std::str::FromStr;

use boxlite::{BoxOptions, NetworkJoin, NetworkMode};
use clap::Args;

use crate::report::CommandFailure;

/// The networks and ports of the new box.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// none for no network card, user for the world outside alone, or the name of a network that the box joins as well
    ///
    /// Given several times, the box joins several networks. NETWORK:ip=ADDRESS,alias=NAME gives it an address and a further name in
    /// that network alone.
    #[arg(long, alias = "net", value_name = "none|user|NETWORK", default_value = "user")]
    network: Vec<NetworkArg>,
    /// Another name of the box in its networks
    #[arg(long = "network-alias", alias = "net-alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Address of the box in its only network [default: a free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
}

/// `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkArg {
    /// No network card.
    None,
    /// Outbound, DNS and forwarded ports.
    User,
    /// The same, unless the network is internal, and the other boxes of that network.
    Join(NetworkJoin),
}

impl FromStr for NetworkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "user" | "bridge" | "default" => Ok(Self::User),
            "host" => Err("a box has a network of its own, never the host's; -p publishes its ports, --allow-host PORT lets it reach one of the host's".into()),
            text if text.starts_with("container:") => {
                Err("boxes share no network card; those of one network reach each other by name (`boxlite network create`)".into())
            }
            text => text.parse().map(Self::Join).map_err(|error: boxlite::Error| error.to_string()),
        }
    }
}

/// Returns how the box reaches the network, and the networks that it joins.
///
/// # Errors
/// `none` and `user` do not go with anything else.
pub(crate) fn networks(given: Vec<NetworkArg>) -> Result<(NetworkMode, Vec<NetworkJoin>), CommandFailure> {
    let several = given.len() > 1;
    let (mut mode, mut joins) = (NetworkMode::User, Vec::new());
    for network in given {
        match network {
            NetworkArg::Join(join) => joins.push(join),
            NetworkArg::None | NetworkArg::User if several => {
                return Err(CommandFailure::local(
                    "--network none and --network user stand alone: with a network that is not internal, a box reaches the world \
                     outside as well",
                ));
            }
            NetworkArg::None => mode = NetworkMode::None,
            NetworkArg::User => {}
        }
    }
    Ok((mode, joins))
}

impl NetworkArgs {
    /// Returns `options` with these.
    pub(super) fn applied_to(self, options: BoxOptions) -> Result<BoxOptions, CommandFailure> {
        let (network, mut networks) = networks(self.network)?;
        let needs = [(!self.aliases.is_empty(), "--network-alias"), (self.ip.is_some(), "--ip")];
        if networks.is_empty()
            && let Some((_, option)) = needs.iter().find(|(given, _)| *given)
        {
            return Err(CommandFailure::local(format!(
                "{option} is for a box that joins a network by its name: add --network NAME"
            )));
        }
        if networks.len() > 1
            && let Some(address) = self.ip
        {
            return Err(CommandFailure::local(format!(
                "--ip is for a box of one network: of several, write --network NAME:ip={address}"
            )));
        }
        for join in &mut networks {
            join.aliases.extend(self.aliases.iter().cloned());
            join.address = join.address.or(self.ip);
        }
        Ok(BoxOptions { network, networks, ..options })
    }
}

//! The reach of a box, its ports, the names that it knows, and the networks that it is a member of.

use std::net::Ipv4Addr;

use boxlite_home::Home;
use boxlite_proto::HostEntry;
use boxlite_storage::network::{self as networks, JoinLease};
use boxlite_types::{
    AddedHost, AddedHostTarget, AllowRule, AllowTarget, BoxOptions, BoxRecord, Error, ErrorCause,
    ImageConfig, Membership, NetworkDescription, NetworkJoin, NetworkMode, PortForward, Result,
    UpdateOptions,
};
use boxlite_vm::net::{self, Member, MemberNetwork};

use crate::context::LocalContext;

/// Checks what `options` say of the network, for which no image is needed.
///
/// # Errors
/// `InvalidInput` for what is malformed or contradicts itself, `Unsupported` for IPv6.
pub(super) fn check(options: &BoxOptions) -> Result<()> {
    ports(options, &ImageConfig::default())?;
    boxlite_types::check_host_ports(&options.allow_host)?;
    let needs_network = [
        (!options.allow_host.is_empty(), "--allow-host"),
        (!options.dns.is_empty(), "--dns"),
        (!options.dns_search.is_empty(), "--dns-search"),
        (options.publish_all, "--publish-all"),
    ];
    if options.network == NetworkMode::None
        && let Some((_, option)) = needs_network.iter().find(|(given, _)| *given)
    {
        return Err(Error::invalid(format!(
            "a box without a network has no use for {option}: leave out either it or --network none"
        )));
    }
    NetworkJoin::check_all(&options.networks)?;
    if options.network == NetworkMode::None
        && let Some(join) = options.networks.first()
    {
        let message = format!("a box without a network card cannot join network '{}'", join.name);
        return Err(Error::invalid(message));
    }
    hosts(options)?;
    name_servers(options)?;
    boxlite_types::parse_search_domains(&options.dns_search)?;
    allowed(options).map(drop)
}

/// The networks that a box is about to be recorded as a member of, and what keeps its addresses there for it until then.
pub(super) struct Joined {
    pub(super) memberships: Vec<Membership>,
    leases: Vec<JoinLease>,
}

/// Chooses the addresses of the box `id` in the networks that its `options` name. In the networks of `current` it keeps its
/// address, unless it asks for another. The caller holds the result until the box is recorded.
///
/// # Errors
/// As for [`networks::join`], and `InvalidInput` for options that a box has no use for whose networks are all internal.
pub(super) fn join(
    context: &LocalContext,
    id: &str,
    options: &BoxOptions,
    current: &[Membership],
) -> Result<Joined> {
    check_joinable(&context.home, options)?;
    // Every box takes the locks of its networks in this order, so that no two wait for each other.
    let mut in_order: Vec<&NetworkJoin> = options.networks.iter().collect();
    in_order.sort_by(|one, other| one.name.cmp(&other.name));
    let mut joined = Joined { memberships: Vec::new(), leases: Vec::new() };
    for join in in_order {
        let stays = |own: &&Membership| {
            own.network == join.name && join.address.is_none_or(|wanted| wanted == own.address)
        };
        let membership = if let Some(own) = current.iter().find(stays) {
            own.clone()
        } else {
            let lease = networks::join(&context.home, &context.store, &join.name, id, join.address)?;
            let address = lease.address;
            joined.leases.push(lease);
            Membership { network: join.name.clone(), address }
        };
        joined.memberships.push(membership);
    }
    let place = |name: &str| options.networks.iter().position(|join| join.name == name);
    joined.memberships.sort_by_key(|membership| place(&membership.network));
    Ok(joined)
}

/// Checks that there are the networks that `options` name, and that they have a use for what is asked of the network.
///
/// # Errors
/// `NotFound`, and `InvalidInput` for what networks that lead nowhere outside cannot do.
pub(crate) fn check_joinable(home: &Home, options: &BoxOptions) -> Result<()> {
    let joined: Vec<NetworkDescription> =
        options.networks.iter().map(|join| networks::read(home, &join.name)).collect::<Result<_>>()?;
    if joined.is_empty() || joined.iter().any(|network| !network.internal) {
        return Ok(());
    }
    let in_vain = [
        (!options.ports.is_empty(), "--publish"),
        (options.publish_all, "--publish-all"),
        (!options.allow_host.is_empty(), "--allow-host"),
        (!options.allow_net.is_empty(), "--allow-net"),
        (!options.dns.is_empty(), "--dns"),
    ];
    let names: Vec<String> = joined.iter().map(|network| format!("'{}'", network.name)).collect();
    let named = match names.as_slice() {
        [name] => format!("network {name} is internal: its boxes"),
        names => format!("networks {} are internal: their boxes", names.join(", ")),
    };
    match in_vain.iter().find(|(given, _)| *given) {
        Some((_, option)) => {
            Err(Error::invalid(format!("{named} reach each other and nothing else, so leave out {option}")))
        }
        None => Ok(()),
    }
}

/// Checks that the box of `record` is not in the network that `changes` have it join, is in the one that they have it leave, and
/// gets no way to the outside merely by leaving.
///
/// # Errors
/// `Conflict` with what to do instead.
pub(super) fn check_changes(home: &Home, record: &BoxRecord, changes: &UpdateOptions) -> Result<()> {
    let BoxRecord { name, options, .. } = record;
    let is_in = |network: &str| options.networks.iter().any(|join| join.name == network);
    let conflict = |message: String| Err(Error::conflict(message).about(ErrorCause::Network));
    if let Some(join) = changes.join.as_ref().filter(|join| is_in(&join.name)) {
        return conflict(format!("box {name} is in network '{}' already", join.name));
    }
    let Some(left) = &changes.leave else { return Ok(()) };
    if !is_in(left) {
        return conflict(format!("box {name} is not in network '{left}'"));
    }
    let is_last = changes.join.is_none() && options.networks.len() == 1;
    // Nothing is known about the rules of a network that was removed.
    let is_internal = networks::read(home, left).map_or(true, |network| network.internal);
    if is_last && is_internal {
        return conflict(format!(
            "box {name} is in no other network than '{left}', and would reach the world outside without it: if it is to, \
             `boxlite update --network user {name}`; with `--network none` it reaches nothing"
        ));
    }
    Ok(())
}

/// The networks that the box of `record` is a member of, for its shim.
///
/// # Errors
/// `NotFound` when one is not there any more.
pub(super) fn member_of(home: &Home, record: &BoxRecord) -> Result<Vec<MemberNetwork>> {
    let one = |membership: &Membership| {
        let Membership { network: name, address } = membership;
        let network = networks::read(home, name)?;
        if !network.subnet.contains(*address) {
            return Err(Error::conflict(format!(
                "box {} has the address {address}, which network '{name}' ({}) has not: the network was made anew; have the \
                 box leave it and join it again (`boxlite network disconnect`, `connect`)",
                record.name, network.subnet
            )));
        }
        let join = record.options.networks.iter().find(|join| join.name == *name);
        let own = Member {
            id: record.id.clone(),
            name: record.name.clone(),
            aliases: join.map(|join| join.aliases.clone()).unwrap_or_default(),
            address: *address,
        };
        let directory = home.of_network(name).members();
        let NetworkDescription { subnet, internal, .. } = network;
        Ok(MemberNetwork { name: name.clone(), directory, subnet, internal, own })
    };
    record.memberships.iter().map(one).collect()
}

/// The lines that are added to the box's `/etc/hosts`.
pub(super) fn hosts(options: &BoxOptions) -> Result<Vec<HostEntry>> {
    let entry = |host: AddedHost| {
        let address = match host.target {
            AddedHostTarget::Address(address) => address.to_string(),
            AddedHostTarget::Host if options.network == NetworkMode::None => {
                return Err(Error::invalid(format!(
                    "{} leads to the host, which a box without a network does not reach: leave out either it or \
                     --network none",
                    host.name
                )));
            }
            AddedHostTarget::Host => net::GATEWAY.to_string(),
        };
        Ok(HostEntry { name: host.name, address })
    };
    AddedHost::parse_list(&options.add_host)?.into_iter().map(entry).collect()
}

/// The addresses of the box's name servers; by default its network's own, which asks the host's.
///
/// # Errors
/// Besides what is malformed, an address that no box reaches, and a list of allowed names: what these stand for is learnt
/// from the network's own name server alone.
pub(super) fn name_servers(options: &BoxOptions) -> Result<Vec<Ipv4Addr>> {
    let servers = boxlite_types::parse_name_servers(&options.dns)?;
    if let Some(server) = servers.iter().find(|&&server| {
        server != net::RESOLVER && (net::is_unreachable(server, 32) || net::SUBNET.contains(server))
    }) {
        return Err(Error::invalid(format!(
            "name server {server}: no box reaches loopback, link-local, multicast or metadata addresses; without --dns \
             a box asks the host's own name servers"
        )));
    }
    let by_name = |rule: &AllowRule| matches!(rule.target, AllowTarget::Name(_) | AllowTarget::Below(_));
    if servers.iter().any(|&server| server != net::RESOLVER)
        && let Some(rule) = allowed(options)?.unwrap_or_default().iter().find(|rule| by_name(rule))
    {
        return Err(Error::invalid(format!(
            "allowed destination {rule} is a name, which only the box's own name server can vouch for: leave out either \
             --dns or names in --allow-net"
        )));
    }
    Ok(servers)
}

/// The list of destinations that the box may reach; `None` where it has no list.
pub(super) fn allowed(options: &BoxOptions) -> Result<Option<Vec<AllowRule>>> {
    if options.allow_net.is_empty() {
        return Ok(None);
    }
    if options.network == NetworkMode::None {
        return Err(Error::invalid(
            "a box without a network has no allowed destinations; leave out either --network none or --allow-net",
        ));
    }
    let rules = AllowRule::parse_list(&options.allow_net)?;
    let in_vain = |rule: &&AllowRule| match rule.target {
        AllowTarget::Block { address, prefix } => net::is_unreachable(address, prefix),
        AllowTarget::Name(_) | AllowTarget::Below(_) => false,
    };
    match rules.iter().find(in_vain) {
        Some(rule) => Err(Error::invalid(format!(
            "allowed destination {rule}: no box reaches loopback, link-local, multicast or metadata addresses"
        ))),
        None => Ok(Some(rules)),
    }
}

/// The forwarded ports that were asked for, by number or, for those that the image exposes, all at once.
pub(super) fn ports(options: &BoxOptions, config: &ImageConfig) -> Result<Vec<PortForward>> {
    let mut ports: Vec<PortForward> = Vec::new();
    for text in &options.ports {
        ports.extend(boxlite_types::parse_ports(text)?);
    }
    if options.publish_all {
        // Exposed ports of protocols other than TCP and UDP cannot be published, and the image's author has not asked
        // for it.
        let exposed =
            config.exposed_ports.iter().filter_map(|text| boxlite_types::parse_ports(text).ok()).flatten();
        for port in exposed {
            let is_published = ports.iter().any(|it| (it.guest, it.protocol) == (port.guest, port.protocol));
            if !is_published {
                ports.push(PortForward { host: 0, ..port });
            }
        }
    }
    if options.network == NetworkMode::None && !ports.is_empty() {
        return Err(Error::invalid("a box without a network has no ports to forward"));
    }
    boxlite_types::refuse_overlaps(&ports)?;
    Ok(ports)
}

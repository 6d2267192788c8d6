//! What a box reaches, what reaches it, the names that it knows, and the network that it is a member of.

use std::net::Ipv4Addr;

use boxlite_home::Home;
use boxlite_proto::HostEntry;
use boxlite_storage::network::{self as networks, JoinLease};
use boxlite_types::{
    AddedHost, AddedHostTarget, AllowRule, AllowTarget, BoxOptions, BoxRecord, Error, ImageConfig,
    Membership, NetworkMode, PortForward, Result, check_aliases, check_network_name,
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
    check_membership(options)?;
    hosts(options)?;
    name_servers(options)?;
    boxlite_types::parse_search_domains(&options.dns_search)?;
    allowed(options).map(drop)
}

/// Checks what `options` say of the network to join, apart from whether there is such a network.
fn check_membership(options: &BoxOptions) -> Result<()> {
    let Some(name) = &options.network_name else {
        let needs = [
            (!options.network_aliases.is_empty(), "--network-alias"),
            (options.network_address.is_some(), "--ip"),
        ];
        return match needs.iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(Error::invalid(format!(
                "{option} is for a box that joins a network by its name: add --network NAME"
            ))),
            None => Ok(()),
        };
    };
    check_network_name(name)?;
    check_aliases(&options.network_aliases)?;
    if options.network == NetworkMode::None {
        return Err(Error::invalid(format!("a box without a network card cannot join network '{name}'")));
    }
    Ok(())
}

/// Chooses the address of a new box in the network that its `options` name, which is kept for it until the lease is dropped:
/// by then the box is recorded.
///
/// # Errors
/// As for [`networks::join`], and `InvalidInput` for options that an internal network has no use for.
pub(super) fn join(context: &LocalContext, options: &BoxOptions) -> Result<Option<(Membership, JoinLease)>> {
    let Some(name) = &options.network_name else { return Ok(None) };
    check_joinable(&context.home, options)?;
    let lease = networks::join(&context.home, &context.store, name, options.network_address)?;
    Ok(Some((Membership { network: name.clone(), address: lease.address }, lease)))
}

/// Checks that there is the network that `options` name, and that it has a use for what they ask of the network.
///
/// # Errors
/// `NotFound`, and `InvalidInput` for what a network that leads nowhere outside cannot do.
pub(crate) fn check_joinable(home: &Home, options: &BoxOptions) -> Result<()> {
    let Some(name) = &options.network_name else { return Ok(()) };
    let network = networks::read(home, name)?;
    let in_vain = [
        (!options.ports.is_empty(), "--publish"),
        (options.publish_all, "--publish-all"),
        (!options.allow_host.is_empty(), "--allow-host"),
        (!options.allow_net.is_empty(), "--allow-net"),
        (!options.dns.is_empty(), "--dns"),
    ];
    match in_vain.iter().find(|(given, _)| *given) {
        Some((_, option)) if network.internal => Err(Error::invalid(format!(
            "network '{name}' is internal: its boxes reach each other and nothing else, so leave out {option}"
        ))),
        _ => Ok(()),
    }
}

/// The network that the box of `record` is a member of, for its shim.
///
/// # Errors
/// `NotFound` when it is not there any more.
pub(super) fn member_of(home: &Home, record: &BoxRecord) -> Result<Option<MemberNetwork>> {
    let Some(Membership { network: name, address }) = &record.membership else { return Ok(None) };
    let network = networks::read(home, name)?;
    if !network.subnet.contains(*address) {
        return Err(Error::conflict(format!(
            "box {} has the address {address}, which network '{name}' ({}) has not: the network was made anew; make the \
             box anew as well, or the network with its old --subnet",
            record.name, network.subnet
        )));
    }
    let own = Member {
        id: record.id.clone(),
        name: record.name.clone(),
        aliases: record.options.network_aliases.clone(),
        address: *address,
    };
    let directory = home.of_network(name).members();
    Ok(Some(MemberNetwork {
        name: name.clone(),
        directory,
        subnet: network.subnet,
        internal: network.internal,
        own,
    }))
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

/// The addresses of the box's name servers; by itself that is its network's, which asks the host's.
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
        // What an image exposes beside TCP and UDP cannot be published, and its author has not asked for it.
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

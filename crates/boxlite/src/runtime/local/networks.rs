//! Networks of a home of this host.

use boxlite_home::EventLog;
use boxlite_storage::network;
use boxlite_storage::references::{NetworkUser, References};
use boxlite_types::{
    ErrorKind, EventAction, HomeEvent, NetworkBox, NetworkDescription, NetworkInfo, NetworkOptions,
    NetworkPrune, Result, Subnet,
};
use boxlite_vm::net;

use super::Local;
use crate::context::LocalContext;
use crate::litebox;
use crate::runtime::operations::NetworkOperations;

impl NetworkOperations for Local {
    async fn create_network(&self, options: NetworkOptions) -> Result<NetworkInfo> {
        self.in_context(move |context| {
            let network = network::create(&context.home, &options, &off_limits()?)?;
            note(context, EventAction::Create, &network);
            Ok(describe(context, network, &References::default()))
        })
        .await
    }

    async fn networks(&self) -> Result<Vec<NetworkInfo>> {
        self.in_context(|context| {
            let references = References::of(&context.home, &context.store)?;
            let mut found = Vec::new();
            for name in network::names(&context.home)? {
                match network::read(&context.home, &name) {
                    Ok(network) => found.push(describe(context, network, &references)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!("{}", error.chain()),
                }
            }
            Ok(found)
        })
        .await
    }

    async fn network(&self, name: &str) -> Result<NetworkInfo> {
        let name = name.to_owned();
        self.in_context(move |context| {
            let network = network::read(&context.home, &name)?;
            Ok(describe(context, network, &References::of(&context.home, &context.store)?))
        })
        .await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.in_context(move |context| {
            let network = network::remove(&context.home, &context.store, &name)?;
            note(context, EventAction::Remove, &network);
            Ok(())
        })
        .await
    }

    async fn prune_networks(&self) -> Result<NetworkPrune> {
        self.in_context(|context| {
            let references = References::of(&context.home, &context.store)?;
            let mut pruned = NetworkPrune::default();
            let names = network::names(&context.home)?;
            for name in names.into_iter().filter(|name| references.to_network(name).is_empty()) {
                match network::remove(&context.home, &context.store, &name) {
                    Ok(network) => {
                        note(context, EventAction::Remove, &network);
                        pruned.removed.push(name);
                    }
                    // It was removed meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => pruned.failures.push(error.chain().to_string()),
                }
            }
            Ok(pruned)
        })
        .await
    }
}

/// Returns the addresses that no network may have: those of boxes and of the host, and those that no box may reach.
fn off_limits() -> Result<Vec<Subnet>> {
    let own = net::own_addresses()?.into_iter().map(|block| Subnet::new(block.address(), block.prefix()));
    let unreachable = net::unreachable_blocks().map(|block| Subnet::new(block.address(), block.prefix()));
    Ok([Subnet::new(net::GUEST, net::PREFIX)].into_iter().chain(unreachable).chain(own).collect())
}

fn note(context: &LocalContext, action: EventAction, network: &NetworkDescription) {
    EventLog::of(&context.home).note(&HomeEvent::of_network(action, &network.id, &network.name));
}

fn describe(context: &LocalContext, network: NetworkDescription, references: &References) -> NetworkInfo {
    let NetworkDescription { format: _, id, name, subnet, internal, labels, created_at } = network;
    let member = |user: &NetworkUser| NetworkBox {
        name: user.name.clone(),
        id: user.id.clone(),
        address: user.address,
        aliases: user.aliases.clone(),
        running: litebox::shim_is_alive(&context.home.of_box(&user.id)).unwrap_or(false),
    };
    let mut boxes: Vec<NetworkBox> = references.to_network(&name).iter().map(member).collect();
    boxes.sort_by(|one, other| one.name.cmp(&other.name));
    NetworkInfo { name, id, subnet, internal, labels, created_at, boxes }
}

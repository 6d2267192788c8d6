//! `network`.

use std::net::Ipv4Addr;

use boxlite::{ErrorKind, NetworkInfo, NetworkJoin, NetworkOptions, Runtime, Subnet, UpdateOptions};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::agreement;
use super::each::each;
use crate::args::{Layout, ListFormatArgs, TemplateArgs, label};
use crate::render::{TextTable, ago, docker, json, laid_out, print, print_line, template_lines};
use crate::report::{CommandFailure, Exit, Topic, visible};

/// `network`.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network, which boxes join by `run --network NAME`
    Create(CreateNetworkArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListNetworksArgs),
    /// Show everything about networks as JSON
    Inspect(InspectNetworksArgs),
    /// Remove networks, unless a box is in them
    #[command(visible_alias = "remove")]
    Rm(RemoveNetworksArgs),
    /// Remove all networks that no box is in; asks first
    Prune(PruneNetworksArgs),
    /// Have a box that does not run join a network
    Connect(ConnectArgs),
    /// Have a box that does not run leave a network
    Disconnect(DisconnectArgs),
}

/// `network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// Let its boxes reach each other and nothing else
    #[arg(long)]
    internal: bool,
    /// Its addresses, from /16 to /29 [default: a free /24 of 10.89.0.0/16]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Subnet>,
    /// Add a label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Accepted because Docker's networks have drivers; there is one
    #[arg(short, long, hide = true, value_name = "DRIVER", value_parser = ["bridge"])]
    driver: Option<String>,
    /// A letter or digit, then letters, digits, `_`, `.` and `-`
    #[arg(value_name = "NAME")]
    name: String,
}

/// `network ls`.
#[derive(Debug, Args)]
pub(crate) struct ListNetworksArgs {
    /// Accepted because Docker has it: nothing is shortened
    #[arg(long, hide = true)]
    no_trunc: bool,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: ListFormatArgs,
}

/// `network inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectNetworksArgs {
    /// Names of networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    #[command(flatten)]
    format: TemplateArgs,
}

/// `network rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveNetworksArgs {
    /// Say nothing of networks that are not there; one with a box in it stays all the same
    #[arg(short, long)]
    force: bool,
    /// Names of networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

/// `network prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneNetworksArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// `network connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Another name of the box in the network
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Address of the box in the network [default: a free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

/// `network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

pub(super) async fn network(runtime: &Runtime, command: NetworkCommand) -> Result<Exit, CommandFailure> {
    match command {
        NetworkCommand::Create(args) => create(runtime, args).await,
        NetworkCommand::Ls(args) => ls(runtime, args).await,
        NetworkCommand::Inspect(args) => inspect(runtime, args).await,
        NetworkCommand::Rm(args) => rm(runtime, args).await,
        NetworkCommand::Prune(args) => prune(runtime, args).await,
        NetworkCommand::Connect(ConnectArgs { aliases, ip, network, id }) => {
            let join = Some(NetworkJoin { name: network, aliases, address: ip });
            change(runtime, &id, UpdateOptions { join, ..UpdateOptions::default() }).await
        }
        NetworkCommand::Disconnect(DisconnectArgs { network, id }) => {
            change(runtime, &id, UpdateOptions { leave: Some(network), ..UpdateOptions::default() }).await
        }
    }
}

async fn change(runtime: &Runtime, id: &str, options: UpdateOptions) -> Result<Exit, CommandFailure> {
    let changed = runtime.update(id, options).await;
    changed.map(|_| Exit::OK).map_err(|error| CommandFailure::of(&error, Topic::Box))
}

async fn create(runtime: &Runtime, args: CreateNetworkArgs) -> Result<Exit, CommandFailure> {
    let labels = args.labels.into_iter().collect();
    let options = NetworkOptions { name: args.name, subnet: args.subnet, internal: args.internal, labels };
    let made =
        runtime.create_network(options).await.map_err(|error| CommandFailure::of(&error, Topic::Network))?;
    print_line(&made.name).map(|()| Exit::OK)
}

async fn ls(runtime: &Runtime, args: ListNetworksArgs) -> Result<Exit, CommandFailure> {
    let networks = runtime.networks().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    let text = match &args.format.format {
        _ if args.quiet => networks.iter().map(|network| visible(&network.name) + "\n").collect(),
        layout => laid_out(layout, &networks, |networks| table(networks, Timestamp::now()), docker::network)?,
    };
    print(&text).map(|()| Exit::OK)
}

fn table(networks: &[NetworkInfo], now: Timestamp) -> String {
    let mut table = TextTable::new(&["NAME", "SUBNET", "INTERNAL", "CREATED", "BOXES"]);
    for network in networks {
        let boxes: Vec<&str> = network.boxes.iter().map(|member| member.name.as_str()).collect();
        table.row([
            network.name.clone(),
            network.subnet.to_string(),
            if network.internal { "yes" } else { "no" }.to_owned(),
            ago(network.created_at, now),
            boxes.join(", "),
        ]);
    }
    table.text()
}

async fn inspect(runtime: &Runtime, args: InspectNetworksArgs) -> Result<Exit, CommandFailure> {
    let mut found = Vec::new();
    let exit = each(&args.names, Topic::Network, async |name: &str| {
        found.push(runtime.network(name).await?);
        Ok(None)
    })
    .await?;
    // A table of everything would be no table.
    let text = match args.format.format {
        Some(Layout::Template(template)) => {
            template_lines(&template, found.iter().map(|one| (one, docker::network(one))))?
        }
        _ => json(&found)?,
    };
    print(&text).map(|()| exit)
}

async fn rm(runtime: &Runtime, args: RemoveNetworksArgs) -> Result<Exit, CommandFailure> {
    each(&args.names, Topic::Network, async |name: &str| match runtime.remove_network(name).await {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(error) if args.force && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

async fn prune(runtime: &Runtime, args: PruneNetworksArgs) -> Result<Exit, CommandFailure> {
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Network);
    if !args.force {
        let networks = runtime.networks().await.map_err(failed)?;
        let unused = networks.iter().filter(|network| network.boxes.is_empty());
        let names: Vec<String> = unused.map(|network| visible(&network.name)).collect();
        let names = if names.is_empty() { "no network".to_owned() } else { names.join(", ") };
        agreement::ask(&format!("This removes the networks that no box is in: {names}"))?;
    }
    let pruned = runtime.prune_networks().await.map_err(failed)?;
    for name in &pruned.removed {
        print_line(&format!("removed network {}", visible(name)))?;
    }
    for failure in &pruned.failures {
        print_line(&format!("not removed: {}", visible(failure)))?;
    }
    Ok(if pruned.failures.is_empty() { Exit::OK } else { Exit::INCOMPLETE })
}

//! `update` and `rename`.

use std::str::FromStr;

use boxlite::settings::{Bytes, parse_duration};
use boxlite::{RestartPolicy, Runtime, UpdateOptions};
use clap::Args;

use super::each::each;
use crate::args::{NetworkArg, Processors, networks, variables};
use crate::environment::Environment;
use crate::report::{CommandFailure, Exit, Topic};

/// `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    changes: Changes,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// The changes; everything else stays.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Disk space of the host at which the box is paused, or `none`; a running box has it at once
    ///
    /// A box that is paused by its quota goes on by itself once that is raised. Nothing in a paused box can free space: raise
    /// the quota, stop the box, which may pass the quota by what it has not synced, or remove it.
    #[arg(long, value_name = "SIZE")]
    disk_quota: Option<SizeOrNone>,
    /// Start the box again after it has ended: no, on-failure, on-failure:N, always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Remove the box so long after it has stopped, or `none`
    #[arg(long, value_name = "DURATION")]
    ttl: Option<SecondsOrNone>,
    /// Stop the box when nobody has used it for so long, or `none`
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<SecondsOrNone>,
    /// Memory of the box
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Virtual processors; of a fraction, such as 0.5 or 1.5, the box has so much time
    #[arg(long, value_name = "N")]
    cpus: Option<Processors>,
    /// Bytes per second that the box may read from and write to its disk, together, or `none`
    #[arg(long, value_name = "SIZE")]
    disk_io: Option<SizeOrNone>,
    /// Set an environment variable; without a value, pass the host's on
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Forward a port of the host to the box, in place of all that were forwarded, or `none`
    #[arg(short, long = "publish", value_name = "[IP:]HOST[:BOX][/tcp|udp]")]
    ports: Vec<String>,
    /// Let the box reach this and nothing else, in place of the list that it had, or `none` for no list
    #[arg(long = "allow-net", value_name = "HOST|CIDR[:PORT]")]
    allow_net: Vec<String>,
    /// Let the box reach a TCP port of the host's loopback, in place of all that it reached, or `none`
    #[arg(long, value_name = "PORT")]
    allow_host: Vec<String>,
    /// Networks that the box is in, in place of all that it was in, as for `run`
    #[arg(long, alias = "net", value_name = "none|user|NETWORK")]
    network: Vec<NetworkArg>,
}

/// `rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
    /// The new name
    #[arg(value_name = "NAME")]
    name: String,
}

/// A size, or the word for its absence.
#[derive(Debug, Clone, Copy)]
struct SizeOrNone(Option<u64>);

impl FromStr for SizeOrNone {
    type Err = <Bytes as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|Bytes(bytes)| Self(Some(bytes))) }
    }
}

/// A duration in seconds, or the word for its absence.
#[derive(Debug, Clone, Copy)]
struct SecondsOrNone(Option<u64>);

impl FromStr for SecondsOrNone {
    type Err = <Bytes as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            Ok(Self(None))
        } else {
            parse_duration(text).map(|span| Self(Some(span.as_secs())))
        }
    }
}

/// A list that replaces another: `None` where none was given, and the empty one for the word `none` alone.
pub(super) fn replacement(given: Vec<String>) -> Option<Vec<String>> {
    match given.as_slice() {
        [] => None,
        [none] if none == "none" => Some(Vec::new()),
        _ => Some(given),
    }
}

fn host_ports(given: Option<Vec<String>>) -> Result<Option<Vec<u16>>, CommandFailure> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| CommandFailure::local(format!("--allow-host {text}: not a port from 1 to 65535")))
    };
    given.map(|texts| texts.iter().map(read).collect()).transpose()
}

pub(super) async fn update(
    runtime: &Runtime,
    environment: &Environment,
    args: UpdateArgs,
) -> Result<Exit, CommandFailure> {
    let changes = args.changes;
    let networks = match changes.network.as_slice() {
        [] => None,
        _ => Some(networks(changes.network)?),
    };
    let options = UpdateOptions {
        name: None,
        disk_quota: changes.disk_quota.map(|SizeOrNone(size)| size),
        disk_io: changes.disk_io.map(|SizeOrNone(size)| size),
        ttl: changes.ttl.map(|SecondsOrNone(seconds)| seconds),
        idle_timeout: changes.idle_timeout.map(|SecondsOrNone(seconds)| seconds),
        restart: changes.restart,
        memory: changes.memory.map(|Bytes(bytes)| bytes),
        cpus: changes.cpus.map(|cpus| cpus.count),
        cpu_limit: changes.cpus.map(|cpus| cpus.limit),
        env: variables(&changes.env, environment)?,
        ports: replacement(changes.ports),
        allow_net: replacement(changes.allow_net),
        allow_host: host_ports(replacement(changes.allow_host))?,
        network: networks.as_ref().map(|(mode, _)| *mode),
        networks: networks.map(|(_, joins)| joins),
        join: None,
        leave: None,
    };
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.update(id, options.clone()).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

pub(super) async fn rename(runtime: &Runtime, args: RenameArgs) -> Result<Exit, CommandFailure> {
    let options = UpdateOptions { name: Some(args.name), ..UpdateOptions::default() };
    runtime.update(&args.id, options).await.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    Ok(Exit::OK)
}

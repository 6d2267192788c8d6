//! `clone`.

use boxlite::settings::Bytes;
use boxlite::{CloneOptions, Runtime};
use clap::Args;

use super::update::replacement;
use crate::args::{variables, volume};
use crate::environment::Environment;
use crate::render::print_line;
use crate::report::{CommandFailure, Exit, Topic};

/// `clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// Name of the clone [default: made up]
    #[arg(long)]
    name: Option<String>,
    /// Give the clone the files of this snapshot of the box
    #[arg(long, value_name = "SNAPSHOT")]
    from_snapshot: Option<String>,
    /// Memory of the clone
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Set an environment variable; without a value, pass the host's on
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Forward a port of the host to the clone, in place of all of the box's, or `none`
    #[arg(short, long = "publish", value_name = "[IP:]HOST[:BOX][/tcp|udp]")]
    ports: Vec<String>,
    /// Mount a named volume in the clone, or share a directory or file of the host, in place of all of the box's; or `none`
    #[arg(short, long = "volume", value_name = "NAME|HOST:BOX[:OPTIONS]", value_parser = volume)]
    volumes: Vec<String>,
    /// The box: name, id or unique beginning of its id; it must not run
    #[arg(value_name = "BOX")]
    source: String,
}

pub(super) async fn clone(
    runtime: &Runtime,
    environment: &Environment,
    args: CloneArgs,
) -> Result<Exit, CommandFailure> {
    let options = CloneOptions {
        name: args.name,
        snapshot: args.from_snapshot,
        memory: args.memory.map(|Bytes(bytes)| bytes),
        env: variables(&args.env, environment)?,
        ports: replacement(args.ports),
        volumes: replacement(args.volumes),
        creation_key: None,
    };
    let cloned = runtime.clone_box(&args.source, options).await;
    let info = cloned.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    print_line(&info.id).map(|()| Exit::OK)
}

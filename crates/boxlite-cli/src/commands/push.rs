//! `push`.

use boxlite::{PushOptions, Runtime};
use clap::Args;

use crate::args::RegistryArgs;
use crate::render::{familiar, print_line, progress};
use crate::report::{CommandFailure, Exit, Topic};

/// `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Print the digest only, and no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Reference, id or unique beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to, `[HOST[:PORT]/]NAME[:TAG]` [default: where IMAGE says]
    #[arg(value_name = "TARGET")]
    target: Option<String>,
}

pub(super) async fn push(runtime: &Runtime, args: PushArgs) -> Result<Exit, CommandFailure> {
    let RegistryArgs { insecure, insecure_credentials } = args.registry;
    let options = PushOptions { insecure, insecure_credentials };
    let sink = progress(args.quiet);
    let pushed = runtime.push(&args.image, args.target.as_deref(), options, sink).await;
    let image = pushed.map_err(|error| CommandFailure::of(&error, Topic::Push))?;
    let target = args.target.as_deref().unwrap_or(&args.image);
    let digest = image.digest;
    let line = if args.quiet { digest.to_string() } else { format!("{}  {digest}", familiar(target)) };
    print_line(&line).map(|()| Exit::OK)
}

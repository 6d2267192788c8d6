//! `pull`.

use boxlite::{PullOptions, PullPolicy, Runtime};
use clap::Args;

use super::each::each;
use crate::render::{familiar, progress};
use crate::report::{CommandFailure, Exit, Topic};

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Print digests only, and no progress
    #[arg(short, long)]
    quiet: bool,
    /// Allow plain HTTP and untrusted certificates with the registry, which is sent no credentials then
    #[arg(long)]
    insecure: bool,
    /// Send credentials to the insecure registry all the same
    #[arg(long, requires = "insecure")]
    insecure_credentials: bool,
    /// `NAME[:TAG][@DIGEST]`, `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) async fn pull(runtime: &Runtime, args: PullArgs) -> Result<Exit, CommandFailure> {
    each(&args.images, Topic::Image, async |reference: &str| {
        let options = PullOptions {
            policy: PullPolicy::Always,
            insecure: args.insecure,
            insecure_credentials: args.insecure_credentials,
            platform: None,
            keep_given_names: false,
        };
        let image = runtime.pull(reference, options, progress(args.quiet)).await?;
        let name = image.references.iter().find(|name| familiar(name) == familiar(reference));
        let line = match name {
            Some(name) if !args.quiet => format!("{}  {}", familiar(name), image.digest),
            _ => image.digest.to_string(),
        };
        Ok(Some(line))
    })
    .await
}

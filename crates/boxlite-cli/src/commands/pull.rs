//! `pull`.

use std::path::PathBuf;

use boxlite::{PullOptions, PullPolicy, Runtime};
use clap::Args;

use super::each::each;
use crate::args::RegistryArgs;
use crate::render::{familiar, progress};
use crate::report::{CommandFailure, Exit, Topic};

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Print digests only, and no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Pull the images that this file names too, one a line; lines that begin with # do not count
    #[arg(long, value_name = "FILE")]
    prefetch: Option<PathBuf>,
    /// `NAME[:TAG][@DIGEST]`, `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`
    #[arg(required_unless_present = "prefetch", value_name = "IMAGE")]
    images: Vec<String>,
}

impl PullArgs {
    /// The images to pull: those of the command line, then those of the file.
    fn references(&self) -> Result<Vec<String>, CommandFailure> {
        let Some(file) = &self.prefetch else { return Ok(self.images.clone()) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            CommandFailure::local(format!("reading the list {} failed: {error}", file.display()))
        })?;
        Ok(self.images.iter().cloned().chain(listed(&text)).collect())
    }
}

/// The lines of a list of images.
fn listed(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

pub(super) async fn pull(runtime: &Runtime, args: PullArgs) -> Result<Exit, CommandFailure> {
    each(&args.references()?, Topic::Image, async |reference: &str| {
        let options = PullOptions {
            policy: PullPolicy::Always,
            insecure: args.registry.insecure,
            insecure_credentials: args.registry.insecure_credentials,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_image_a_line_and_comments() {
        let text = "# of the lab\nalpine:3.20\n\n  debian@sha256:0 \r\n#x\n";
        assert_eq!(listed(text).collect::<Vec<_>>(), ["alpine:3.20", "debian@sha256:0"]);
    }
}

//! `pull`.

use boxlite::{PullOptions, PullPolicy, Runtime};

use super::each::each;
use crate::args::PullArgs;
use crate::render::{familiar, progress};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn pull(runtime: &Runtime, args: PullArgs) -> Result<Exit, Failure> {
    each(&args.images, Topic::Image, async |reference: &str| {
        let options =
            PullOptions { policy: PullPolicy::Always, insecure: args.insecure, ..PullOptions::default() };
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

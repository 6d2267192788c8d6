//! `image`: built disk images on their way through a registry.

use std::path::PathBuf;

use boxlite::{DiskImageFetchOptions, DiskImagePushOptions, Runtime};
use clap::{Args, Subcommand};

use super::each::each;
use crate::args::RegistryArgs;
use crate::render::{familiar, progress};
use crate::report::{CommandFailure, Exit, Topic};

/// `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Send the built disk images of images to a registry; what is not built yet is built first
    Push(ImagePushArgs),
    /// Fetch images and their built disk images from a registry, in place of the layers
    #[command(after_help = TRUST)]
    Fetch(ImageFetchArgs),
}

const TRUST: &str = "Whoever can write a built disk image to the registry chooses what runs in the boxes. So nothing is fetched unless \
the settings say whose disk images count: image_fetch_keys names public keys that must have signed them, image_fetch_from repositories.";

/// `image push`.
#[derive(Debug, Args)]
pub(crate) struct ImagePushArgs {
    /// Print digests only, and no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Repository for them, `[HOST[:PORT]/]NAME` [default: each image's own]
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,
    /// File with an ed25519 private key to sign them with, as `openssl genpkey -algorithm ed25519` makes it
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Reference, id or unique beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// `image fetch`.
#[derive(Debug, Args)]
pub(crate) struct ImageFetchArgs {
    /// Print digests only, and no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Repository that has them, `[HOST[:PORT]/]NAME` [default: each image's own]
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<String>,
    /// `NAME[:TAG][@DIGEST]`
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) async fn image(runtime: &Runtime, command: ImageCommand) -> Result<Exit, CommandFailure> {
    match command {
        ImageCommand::Push(args) => push(runtime, args).await,
        ImageCommand::Fetch(args) => fetch(runtime, args).await,
    }
}

async fn push(runtime: &Runtime, args: ImagePushArgs) -> Result<Exit, CommandFailure> {
    let RegistryArgs { insecure, insecure_credentials } = args.registry;
    each(&args.images, Topic::Push, async |wanted: &str| {
        let options = DiskImagePushOptions {
            to: args.to.clone(),
            sign_key: args.sign_key.clone(),
            insecure,
            insecure_credentials,
        };
        let pushed = runtime.push_disk_image(wanted, options, progress(args.quiet)).await?;
        let signed = pushed.key.map(|key| format!("  signed by {key}")).unwrap_or_default();
        Ok(Some(if args.quiet {
            pushed.artifact.to_string()
        } else {
            format!("{}  {}@{}{signed}", familiar(wanted), pushed.repository, pushed.artifact)
        }))
    })
    .await
}

async fn fetch(runtime: &Runtime, args: ImageFetchArgs) -> Result<Exit, CommandFailure> {
    let RegistryArgs { insecure, insecure_credentials } = args.registry;
    each(&args.images, Topic::Image, async |reference: &str| {
        let options = DiskImageFetchOptions { from: args.from.clone(), insecure, insecure_credentials };
        let fetched = runtime.fetch_disk_image(reference, options, progress(args.quiet)).await?;
        let how = fetched.artifact.map_or_else(|| "was there".to_owned(), |artifact| artifact.to_string());
        let digest = fetched.image.digest;
        Ok(Some(if args.quiet {
            digest.to_string()
        } else {
            format!("{}  {digest}  disk image {how}", familiar(reference))
        }))
    })
    .await
}

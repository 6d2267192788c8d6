//! The commands on images.

use clap::Args;

use super::FormatArgs;

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Print digests only, and no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Allow plain HTTP to the registry
    #[arg(long)]
    pub(crate) insecure: bool,
    /// `NAME[:TAG][@DIGEST]`, `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImageArgs {
    /// Remove it although a box uses it or it has several names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// References, ids or unique beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

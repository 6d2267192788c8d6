//! `update`.

use std::str::FromStr;

use boxlite::settings::Bytes;
use boxlite::{Runtime, UpdateOptions};
use clap::Args;

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};

/// `update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Disk space of the host at which the box is paused, or `none`
    ///
    /// A box that is paused by its quota goes on by itself once that is raised. Nothing in a paused box can free space: raise
    /// the quota, stop the box, which may pass the quota by what it has not synced, or remove it.
    #[arg(long, value_name = "SIZE")]
    disk_quota: QuotaArg,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// A quota, or the word for its absence.
#[derive(Debug, Clone, Copy)]
struct QuotaArg(Option<u64>);

impl FromStr for QuotaArg {
    type Err = <Bytes as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|Bytes(bytes)| Self(Some(bytes))) }
    }
}

pub(super) async fn update(runtime: &Runtime, args: UpdateArgs) -> Result<Exit, CommandFailure> {
    let options = UpdateOptions { disk_quota: args.disk_quota.0 };
    each(&args.boxes, Topic::Box, async |id: &str| {
        runtime.update(id, options.clone()).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

//! The facts that the process beside a shim needs to act for the box when its run has ended.

use boxlite_types::{BoxOptions, Error, RestartPolicy, Result};
use boxlite_vm::shim::{Accel, KeeperSpec};
use serde::{Deserialize, Serialize};

use crate::assets::AssetSearch;
use crate::context::LocalContext;

/// The options of the box's starter that are not in the home or in variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Starter {
    pub(crate) assets: AssetSearch,
    pub(crate) accel: Accel,
}

/// The keeper of a box with these options; `None` for one that stays as its run has left it.
pub(super) fn keeper(context: &LocalContext, options: &BoxOptions) -> Result<Option<KeeperSpec>> {
    if options.restart == RestartPolicy::No && options.ttl.is_none() {
        return Ok(None);
    }
    let starter = Starter { assets: context.assets.clone(), accel: context.accel };
    let starter = serde_json::to_value(starter)
        .map_err(|error| Error::invalid("a path of the assets is not text").because(error))?;
    Ok(Some(KeeperSpec { starter }))
}

//! What this host and its home are like.

use boxlite_home::admission::{Claims, Thresholds, judge};
use boxlite_types::{Acceleration, BoxState, Error, HostInfo, Result, SpaceInfo};
use boxlite_vm::shim::accel;

use super::Local;
use crate::litebox;
use crate::site::Site;

impl Local {
    pub(super) async fn host_info(&self) -> Result<HostInfo> {
        self.on_site(|site| {
            let boxes = site.store.boxes()?;
            let runs = |listed| {
                litebox::describe_listed(&site.home, listed).is_ok_and(|info| info.state == BoxState::Running)
            };
            let (acceleration, acceleration_problem) = match acceleration(site) {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(error.chain().to_string())),
            };
            Ok(HostInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                home: site.home.root().to_owned(),
                boxes: boxes.len(),
                running: boxes.iter().filter(|listed| runs(listed)).count(),
                images: site.store.images()?.len(),
                acceleration,
                acceleration_problem,
                assets: site.assets.report(),
                space: space(site).ok(),
                settings: site.settings.describe(),
            })
        })
        .await
    }
}

fn acceleration(site: &Site) -> Result<Acceleration> {
    let qemu = site.assets.qemu().ok_or_else(|| Error::unsupported("this host has no QEMU"))?;
    let host = accel::examine(&site.home, &qemu)?;
    let choice = accel::choose(&site.home, &qemu, site.accel)?;
    Ok(Acceleration {
        name: choice.accelerator.name().to_owned(),
        reason: choice.reason,
        qemu: host.qemu_version,
    })
}

fn space(site: &Site) -> Result<SpaceInfo> {
    let live = Claims::open(&site.home)?.live()?;
    let claims: Vec<u64> = live.iter().map(|claim| claim.bytes).collect();
    let free = boxlite_home::durable::free_space(site.home.root())?;
    let verdict = judge(&free, claims.iter().sum(), &Thresholds::of(&site.settings));
    Ok(SpaceInfo { free, verdict, claims })
}

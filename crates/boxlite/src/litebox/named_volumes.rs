//! The named volumes of a box: made with the box, and attached with its start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_home::admission::Collector;
use boxlite_storage::references::{References, VolumeUser};
use boxlite_storage::volume::{self, VolumeDisk, VolumeLease};
use boxlite_types::{BoxOptions, BoxRecord, Doing, Error, ErrorCause, Result, VolumeMount, VolumeOptions};
use boxlite_vm::volume::{NamedDisk, parse_named};

use super::guard::LAST_RUN_EXIT_TIMEOUT;
use super::observe::shim_is_alive;
use crate::context::LocalContext;

/// The named volumes that `options` ask for.
///
/// # Errors
/// `InvalidInput` for one that is malformed.
pub(super) fn asked_for(options: &BoxOptions) -> Result<Vec<VolumeMount>> {
    let named = options.volumes.iter().filter_map(|text| parse_named(text).transpose());
    named.collect()
}

/// Makes the volumes that are missing, as Docker does, and keeps all from being removed for as long as the result lives: until
/// the box's record says that it mounts them.
///
/// # Errors
/// As for [`volume::ensure`].
pub(super) fn ensure(context: &LocalContext, mounts: &[VolumeMount]) -> Result<Vec<VolumeLease>> {
    let collector: Arc<dyn Collector> = Arc::new(context.collector());
    let ensure = |mount: &VolumeMount| {
        let options = VolumeOptions { name: mount.name.clone(), ..VolumeOptions::default() };
        volume::ensure(&context.home, &context.store, &context.settings, &collector, &options)
    };
    mounts.iter().map(ensure).collect()
}

/// The disks of a box's named volumes, attached for one run of it.
#[derive(Debug)]
pub(super) struct AttachedVolumes {
    disks: Vec<VolumeDisk>,
}

impl AttachedVolumes {
    /// Attaches the volumes of the box of `record`, before anything is written for its start.
    ///
    /// # Errors
    /// `Conflict`, naming the box that has one attached; `NotFound` and `Corrupt` for a volume that is not there as it was.
    pub(super) fn attach(context: &LocalContext, record: &BoxRecord) -> Result<Self> {
        let attach = |mount: &VolumeMount| attach(context, record, mount);
        Ok(Self { disks: record.named_volumes.iter().map(attach).collect::<Result<_>>()? })
    }

    /// Returns the volumes' descriptions for the shim.
    pub(super) fn described(context: &LocalContext, record: &BoxRecord) -> Vec<NamedDisk> {
        let disk = |mount: &VolumeMount| NamedDisk {
            mount: mount.clone(),
            path: context.home.of_volume(&mount.name).disk(),
        };
        record.named_volumes.iter().map(disk).collect()
    }

    /// The open disks with their locks, for the shim.
    pub(super) fn hand_over(self) -> Result<Vec<OwnedFd>> {
        let descriptor = |disk: &VolumeDisk| disk.as_fd().try_clone_to_owned();
        self.disks.iter().map(descriptor).collect::<std::io::Result<_>>().doing("handing over", "a volume")
    }
}

/// Attaches one volume. Observers hold its lock for an instant, and a machine that is ending until it has gone.
fn attach(context: &LocalContext, record: &BoxRecord, mount: &VolumeMount) -> Result<VolumeDisk> {
    let began = Instant::now();
    loop {
        if let Some(disk) = VolumeDisk::attach(&context.home, &mount.name, mount.read_only)? {
            return Ok(disk);
        }
        let references = References::of(&context.home, &context.store)?;
        let others = references.to(&mount.name).iter().filter(|user| user.id != record.id);
        let (running, resting): (Vec<_>, Vec<_>) =
            others.partition(|user| shim_is_alive(&context.home.of_box(&user.id)).unwrap_or(false));
        if !running.is_empty() || began.elapsed() > LAST_RUN_EXIT_TIMEOUT {
            let users = if running.is_empty() { resting } else { running };
            return Err(in_use(mount, &users));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says which box has the volume attached; of several that may have, all.
fn in_use(mount: &VolumeMount, users: &[&VolumeUser]) -> Error {
    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let holder = match &names[..] {
        [] => "another machine".to_owned(),
        names => format!("box {}", names.join(" or box ")),
    };
    let (name, rule) = (
        &mount.name,
        if mount.read_only {
            "it cannot be read while a box may write to it"
        } else {
            "it has one writer at a time, and no reader then"
        },
    );
    Error::conflict(format!("volume '{name}' is attached to {holder}, and {rule}; stop that box first"))
        .about(ErrorCause::VolumeInUse)
}

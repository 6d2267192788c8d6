//! A new box: checked, given its directory, and recorded.

use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::BoxPaths;
use boxlite_home::durable::{self, Lock, StagedDir, fault};
use boxlite_home::settings::Bytes;
use boxlite_proto::TmpfsMount;
use boxlite_storage::disk_image;
use boxlite_storage::store::IntentKind;
use boxlite_types::{
    BoxOptions, BoxRecord, Doing, Error, ErrorCause, ErrorKind, Image, ImageConfig, Phase, RestartPolicy,
    Restarts, Result, Volume,
};
use boxlite_vm::shim::DiskQuota;
use boxlite_vm::volume::{self, OffLimits};
use jiff::Timestamp;

use super::new_box::NewBox;
use super::remove::{forget, release_name};
use super::{description, name, named_volumes, network, process, processors, quota};
use crate::context::LocalContext;

/// The least memory that the guest's kernel boots in.
const MIN_MEMORY: u64 = 96 << 20;
/// The least bytes per second of a disk.
const MIN_DISK_IO: u64 = 256 << 10;

/// The longest host name that the kernel takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// Checks a host name: labels of letters, digits, `-` and `_`, with dots between them.
fn check_hostname(name: &str) -> Result<()> {
    let fit = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() <= MAX_HOSTNAME && name.split('.').all(fit) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is not a host name: up to {MAX_HOSTNAME} letters, digits, `-` and `_`, with dots between its parts"
    )))
}

/// Checks `options` against each other, the image's `config`, and the virtual size `base` of the disk image.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(crate) fn check(options: &BoxOptions, config: &ImageConfig, base: u64) -> Result<()> {
    check_alone(options)?;
    if let Some(wanted) = options.disk_size
        && wanted < base
    {
        return Err(Error::invalid(format!(
            "a disk of {} is smaller than its disk image, whose virtual size is {}; ask for \
             at least that, or lower the setting disk_size",
            Bytes(wanted),
            Bytes(base)
        )));
    }
    if let Some(wanted) = options.disk_quota {
        quota::check(DiskQuota(wanted), options.disk_size.unwrap_or(base))?;
    }
    network::ports(options, config)?;
    boxlite_types::stop_signal(options, config)?;
    process::main_process(options, config).map(drop)
}

/// Checks of `options` what needs no image: before one is pulled.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(crate) fn check_alone(options: &BoxOptions) -> Result<()> {
    if let Some(name) = &options.name {
        name::check(name)?;
    }
    processors::check(options)?;
    if options.memory < MIN_MEMORY {
        return Err(Error::invalid(format!(
            "a box needs at least {} of memory, and {} were asked for; a number without a unit counts bytes: 512m are \
             512 MiB",
            Bytes(MIN_MEMORY),
            Bytes(options.memory)
        )));
    }
    if let Some(hostname) = &options.hostname {
        check_hostname(hostname)?;
    }
    if let Some(workdir) = &options.workdir
        && !workdir.starts_with('/')
    {
        return Err(Error::invalid(format!("the working directory {workdir:?} is not an absolute path")));
    }
    if let Some(wanted) = options.disk_io
        && wanted < MIN_DISK_IO
    {
        return Err(Error::invalid(format!(
            "{wanted} bytes per second are too few for a disk: its guest would take minutes to boot; ask for at least {}",
            Bytes(MIN_DISK_IO)
        )));
    }
    if let Some(entry) = options.env.iter().find(|entry| !entry.contains('=') || entry.starts_with('=')) {
        return Err(Error::invalid(format!("'{entry}' is not an environment entry; write NAME=value")));
    }
    if options.auto_remove && options.restart != RestartPolicy::No {
        return Err(Error::invalid(format!(
            "a box that is removed when it stops cannot be restarted then: leave out either --rm or --restart {}",
            options.restart
        )));
    }
    if options.idle_timeout == Some(0) {
        return Err(Error::invalid(
            "an idle timeout of 0 s would stop the box at once; leave it out for none",
        ));
    }
    if options.auto_remove && options.ttl.is_some() {
        return Err(Error::invalid(
            "a box that is removed when it stops has no time to live after that: leave out either --rm or --ttl",
        ));
    }
    if let Some(health) = &options.health {
        health.check()?;
    }
    boxlite_types::parse_ulimits(&options.ulimits)?;
    boxlite_types::parse_sysctls(&options.sysctls)?;
    network::check(options)
}

/// Checks what `options` say of volumes and of other things to mount, for which no image is needed.
///
/// # Errors
/// `InvalidInput` for what is malformed or contradicts itself, and whatever a volume's directory is refused for.
pub(crate) fn check_mounts(context: &LocalContext, options: &BoxOptions) -> Result<()> {
    if options.shm_size == Some(0) {
        return Err(Error::invalid(
            "/dev/shm of 0 bytes would have no bound; leave the size out, or say how much",
        ));
    }
    volumes(context, options).map(drop)
}

/// The filesystems in memory that were asked for.
pub(super) fn tmpfs(options: &BoxOptions) -> Result<Vec<TmpfsMount>> {
    options.tmpfs.iter().map(|text| volume::parse_tmpfs(text)).collect()
}

/// The directories of the host that were asked for, checked together with everything else that is to be mounted.
pub(super) fn volumes(context: &LocalContext, options: &BoxOptions) -> Result<Vec<Volume>> {
    let here = std::env::current_dir().doing("finding", "the working directory")?;
    let named = named_volumes::asked_for(options)?;
    let is_named = |text: &&String| matches!(volume::parse_named(text), Ok(Some(_)));
    let paths = options.volumes.iter().filter(|text| !is_named(text));
    let specs: Vec<_> = paths.map(|text| volume::parse_volume(text)).collect::<Result<_>>()?;
    volume::check_set(&specs, &tmpfs(options)?)?;
    volume::check_named(&named, &specs, &tmpfs(options)?)?;
    let off_limits = off_limits(context);
    specs.iter().map(|spec| volume::resolve(spec, &here, &off_limits)).collect()
}

/// Returns the places that no volume of a box may show.
pub(super) fn off_limits(context: &LocalContext) -> OffLimits {
    OffLimits { home: context.home.root().to_owned(), assets: context.assets.found() }
}

/// Makes the box's directory and then its record.
pub(crate) fn create(context: &Arc<LocalContext>, options: BoxOptions, image: &Image) -> Result<NewBox> {
    let disk_image_size = context.settings.disk_size.value.0;
    let mut record = BoxRecord {
        id: name::new_id(),
        name: options.name.clone().unwrap_or_else(name::made_up),
        image: image.digest.to_string(),
        image_reference: options.image.clone(),
        disk_digest: disk_image::digest(image, disk_image_size),
        disk_image_size,
        image_config: image.config.clone(),
        volumes: volumes(context, &options)?,
        named_volumes: named_volumes::asked_for(&options)?,
        memberships: Vec::new(),
        options,
        created_at: Timestamp::now(),
        phase: Phase::Created,
        restarts: Restarts::default(),
        snapshots: Vec::new(),
    };
    // A disk image that is there already is not collected while the record that pins it is being made.
    let _lease = disk_image::lease(&context.home, &record.disk_digest)?;
    let _volumes = named_volumes::ensure(context, &record.named_volumes)?;
    let joined = network::join(context, &record.id, &record.options, &[])?;
    record.memberships.clone_from(&joined.memberships);
    let tied_id = (context.tied && record.options.auto_remove).then(|| record.id.clone());
    establish(context, &mut record, Unrecorded::Mark, |unseen| {
        tied_id.iter().try_for_each(|id| context.starters.begin(id, unseen))?;
        Ok(Vec::new())
    })?;
    let new = NewBox::of(context, record);
    fault::point("create.recorded").doing("creating", &new.record().name)?;
    Ok(new)
}

/// The permission of gc to remove a directory that is published and not recorded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unrecorded {
    /// A file in the directory of a box that has no disk. It costs no transaction, and says nothing once there is a disk.
    Mark,
    /// An intent, for a box that has a disk from the beginning. It is dropped with the record's insertion. It is written while
    /// the directory is staged, so that gc, which drops intents for what is gone, sees that this one is about a box that is
    /// being made.
    Intent,
    /// The same for a box whose image need not be in the catalogue.
    Import,
}

/// Makes the directory of a new box out of sight, `furnish`es it with the box's disk, publishes it and records the box
/// as one that stands on the bases that `furnish` returns.
///
/// The lock files are made here, so that a start that is refused writes nothing. The state lock is held until the box is
/// recorded, because gc leaves a directory alone while its lock is held.
///
/// # Crash safety
/// Before the directory is published it is trash in `images/tmp`. Between publication and record, `unrecorded` says that
/// it holds no user's data.
pub(super) fn establish(
    context: &LocalContext,
    record: &mut BoxRecord,
    unrecorded: Unrecorded,
    furnish: impl FnOnce(&BoxPaths) -> Result<Vec<PathBuf>>,
) -> Result<()> {
    let id = record.id.clone();
    let paths = context.home.of_box(&id);
    let staged = StagedDir::create(&context.home.tmp())?;
    refuse_taken(&paths)?;
    if unrecorded != Unrecorded::Mark {
        context.store.intend(IntentKind::Box, &id, "its creation was cut short")?;
    }
    let established = publish(context, staged, record, &paths, unrecorded, furnish);
    if established.is_err() {
        // A directory that cannot be removed now is left to gc.
        match durable::discard_dir(paths.root(), &context.home.tmp()) {
            Ok(()) if unrecorded != Unrecorded::Mark => forget(context, &id),
            Ok(()) => {}
            Err(error) => tracing::warn!(error = %error.chain(), "an unfinished box is left to gc"),
        }
    }
    established
}

/// Refuses an id that is taken in `boxes/`, before an intent is written that would remove what is there.
fn refuse_taken(paths: &BoxPaths) -> Result<()> {
    match paths.root().symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("examining", paths.root(), error)),
        Ok(_) => {
            let message = format!("{} exists already", paths.root().display());
            Err(Error::conflict(message).at(paths.root()))
        }
    }
}

fn publish(
    context: &LocalContext,
    staged: StagedDir,
    record: &mut BoxRecord,
    paths: &BoxPaths,
    unrecorded: Unrecorded,
    furnish: impl FnOnce(&BoxPaths) -> Result<Vec<PathBuf>>,
) -> Result<()> {
    let unseen = BoxPaths::new(staged.path().to_owned());
    let _state_lock = Lock::exclusive(&unseen.state_lock())?;
    staged.create_dir(BoxPaths::DISKS)?;
    Lock::exclusive(&unseen.shim_lock())?;
    Lock::exclusive(&unseen.attendance_lock())?;
    if unrecorded == Unrecorded::Mark {
        staged.write(BoxPaths::UNRECORDED, &[])?;
    }
    let bases = furnish(&unseen)?;
    description::stage(context, &staged, record)?;
    staged.publish(paths.root())?;
    fault::point("create.unrecorded").doing("creating", paths.root())?;
    let name = record.name.clone();
    insert(context, record, &bases, unrecorded)?;
    if let Err(error) = durable::remove_volatile(&paths.unrecorded()) {
        tracing::warn!(error = %error.chain(), "a box that is recorded is still marked as one that is not");
    }
    // The name was taken, and another was made up. The box is recorded already, even if its description stays stale.
    if record.name != name
        && let Err(error) = description::write(context, paths, record)
    {
        tracing::warn!(error = %error.chain(), "the box's description has another name than the box");
    }
    Ok(())
}

/// Inserts the record, under another made-up name where the first is taken.
fn insert(
    context: &LocalContext,
    record: &mut BoxRecord,
    bases: &[PathBuf],
    unrecorded: Unrecorded,
) -> Result<()> {
    loop {
        let inserted = match unrecorded {
            Unrecorded::Import => context.store.adopt_box(record, bases),
            Unrecorded::Mark | Unrecorded::Intent => context.store.insert_box_on(record, bases),
        };
        match inserted {
            // Another name would not help.
            Err(error) if error.cause() == Some(ErrorCause::SameRequest) => return Err(error),
            Err(error) if error.kind() == ErrorKind::Conflict && record.options.name.is_none() => {
                record.name = name::made_up();
            }
            Err(error) if error.kind() == ErrorKind::Conflict && release_name(context, &record.name)? => {
                tracing::debug!(error = %error.chain(), "an ended auto-remove box gave up its name");
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guest_could_have_is_refused_with_the_figures() {
        let refused = |change: fn(&mut BoxOptions)| {
            let mut options = BoxOptions::default();
            change(&mut options);
            check(&options, &ImageConfig::default(), 1 << 30).unwrap_err().to_string()
        };
        let little = refused(|options| options.memory = 512);
        assert!(little.contains("at least 96 MiB") && little.contains("512 B were asked for"), "{little}");
        for name in ["", "bad name", "-a", "a..b", ".a", "ä", "a/b"] {
            assert!(check_hostname(name).is_err(), "{name:?}");
        }
        for name in ["a", "web-1", "my_box", "db.internal", "7"] {
            check_hostname(name).unwrap();
        }
        check_hostname(&"x".repeat(MAX_HOSTNAME)).unwrap();
        check_hostname(&"x".repeat(MAX_HOSTNAME + 1)).unwrap_err();
        assert!(refused(|options| options.hostname = Some("a b".into())).contains("not a host name"));
    }
}

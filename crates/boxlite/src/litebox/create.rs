//! A new box: checked, given its directory, and recorded.

use boxlite_home::BoxPaths;
use boxlite_home::durable::{self, Lock};
use boxlite_home::lease::Leased;
use boxlite_home::settings::Settings;
use boxlite_storage::disk_image;
use boxlite_types::{
    BoxOptions, BoxRecord, Doing, Error, ErrorKind, Image, NetworkMode, Phase, PortForward, Result, Volume,
};
use boxlite_vm::volume;
use jiff::Timestamp;

use super::{name, process, release_name};
use crate::context::LocalContext;

/// The least memory that the guest's kernel boots in.
const MIN_MEMORY: u64 = 96 << 20;
const MAX_CPUS: u32 = 255;

/// Checks `options` against each other, the settings and the image.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(crate) fn check(options: &BoxOptions, image: &Image, settings: &Settings) -> Result<()> {
    if let Some(name) = &options.name {
        name::check(name)?;
    }
    if options.cpus == 0 || options.cpus > MAX_CPUS {
        return Err(Error::invalid(format!("a box has 1 to {MAX_CPUS} processors, not {}", options.cpus)));
    }
    if options.memory < MIN_MEMORY {
        return Err(Error::invalid(format!(
            "a box needs at least {} MiB of memory, and {} MiB were asked for",
            MIN_MEMORY >> 20,
            options.memory >> 20
        )));
    }
    let base = settings.disk_size.value.0;
    if let Some(wanted) = options.disk_size
        && wanted < base
    {
        return Err(Error::invalid(format!(
            "a disk of {wanted} bytes is smaller than its disk image, whose virtual size is {base} bytes; ask for \
             at least that, or lower the setting disk_size"
        )));
    }
    if let Some(entry) = options.env.iter().find(|entry| !entry.contains('=') || entry.starts_with('=')) {
        return Err(Error::invalid(format!("'{entry}' is not an environment entry; write NAME=value")));
    }
    ports(options)?;
    boxlite_types::stop_signal(options, &image.config)?;
    process::main_process(options, &image.config).map(drop)
}

/// The forwarded ports that were asked for.
pub(super) fn ports(options: &BoxOptions) -> Result<Vec<PortForward>> {
    let mut ports = Vec::new();
    for text in &options.ports {
        ports.extend(boxlite_types::parse_ports(text)?);
    }
    if options.network == NetworkMode::None && !ports.is_empty() {
        return Err(Error::invalid("a box without a network has no ports to forward"));
    }
    boxlite_types::refuse_overlaps(&ports)?;
    Ok(ports)
}

fn volumes(context: &LocalContext, options: &BoxOptions) -> Result<Vec<Volume>> {
    let here = std::env::current_dir().doing("finding", "the working directory")?;
    let specs: Vec<_> =
        options.volumes.iter().map(|text| volume::parse_volume(text)).collect::<Result<_>>()?;
    volume::check_set(&specs)?;
    specs.iter().map(|spec| volume::resolve(spec, &here, context.home.root())).collect()
}

/// Makes the box's directory and then its record; a crash in between leaves garbage that gc recognises.
pub(crate) fn create(context: &LocalContext, options: BoxOptions, image: &Image) -> Result<BoxRecord> {
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
        options,
        created_at: Timestamp::now(),
        phase: Phase::Created,
    };
    let paths = context.home.of_box(&record.id);
    let made = make_directory(&paths);
    // A disk image that is there already is not collected while the record that pins it comes to be.
    let lease = Leased::acquire(&context.home.disk_image(&record.disk_digest));
    let recorded = made.and_then(|state_lock| {
        let _lease = lease?;
        insert(context, &mut record)?;
        drop(state_lock);
        Ok(())
    });
    if let Err(error) = recorded {
        // What cannot be removed now has no record, and gc recognises it as garbage.
        let _ = durable::discard_dir(paths.root(), &context.home.tmp());
        return Err(error);
    }
    Ok(record)
}

/// Makes the box's directory with its locks and returns the state's, held: gc leaves a directory alone whose lock is
/// held.
///
/// The locks exist from the beginning, so that a start that is refused has written nothing.
pub(super) fn make_directory(paths: &BoxPaths) -> Result<Lock> {
    durable::create_dir(paths.root())?;
    let state_lock = Lock::exclusive(&paths.state_lock())?;
    durable::create_dir(&paths.disks())?;
    Lock::exclusive(&paths.shim_lock())?;
    Ok(state_lock)
}

/// Inserts the record, under another made-up name where the first is taken.
pub(super) fn insert(context: &LocalContext, record: &mut BoxRecord) -> Result<()> {
    loop {
        match context.store.insert_box(record) {
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

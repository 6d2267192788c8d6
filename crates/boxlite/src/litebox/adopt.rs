//! Adoption: giving a box directory without a record its record back.

use boxlite_home::durable::Lock;
use boxlite_home::{BoxPaths, is_id};
use boxlite_storage::disk::overlay::{self, Below};
use boxlite_storage::disk_image;
use boxlite_types::{Adoption, BoxDescription, BoxRecord, Error, ErrorKind, Phase, Result, RunOutcome};

use super::guard::shim_lock;
use super::source::way_back;
use super::{describe, description, name, snapshot};
use crate::context::LocalContext;

/// Gives the box whose directory `wanted` names (its id, or a prefix that only one has) its record back, from its
/// `box.json`; one that has its record is left as it is.
///
/// # Errors
/// `NotFound` when there is no such directory or it says nothing of its box; `Corrupt` when what it says contradicts
/// the disk; `Busy` while another process is working on it.
pub(crate) fn adopt(context: &LocalContext, wanted: &str) -> Result<Adoption> {
    let id = find(context, wanted)?;
    let paths = context.home.of_box(&id);
    let busy = || Error::new(ErrorKind::Busy, format!("box {id} is in use; try again"));
    let _state_lock = Lock::try_exclusive(&paths.state_lock())?.ok_or_else(busy)?;
    // Checked with the lock held: another process may have adopted it meanwhile.
    match context.store.find_box(&id) {
        Ok(record) => {
            let notices = vec![format!("box {} has its record", record.name)];
            return Ok(Adoption { info: describe(&context.home, &record)?, notices });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let _at_rest = shim_lock(&paths, &id)?;
    let described = description::read(&paths, &id)?;
    let mut notices = Vec::new();
    if described.home != context.store.shared_id()? {
        notices.push("the box was made in another home".to_owned());
    }
    let (record, below) = consistent(context, &paths, described, &mut notices)?;
    let record = insert(context, record, &below, &mut notices)?;
    description::write(context, &paths, &record)?;
    if disk_image::lease(&context.home, &record.disk_digest)?.is_none() {
        let known = context.store.images()?.iter().any(|image| image.digest.to_string() == record.image);
        notices.push(if known {
            "its disk image is not here; a start builds it again".to_owned()
        } else {
            format!("neither its disk image nor its image is here; {}", way_back(&record.image_reference))
        });
    }
    Ok(Adoption { info: describe(&context.home, &record)?, notices })
}

/// The id of the only box directory whose name begins with `wanted`.
fn find(context: &LocalContext, wanted: &str) -> Result<String> {
    let directory = context.home.boxes();
    let entries = std::fs::read_dir(&directory).map_err(|error| Error::io("listing", &directory, error))?;
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !wanted.is_empty() && name.starts_with(wanted) && is_id(name))
        .collect();
    found.sort();
    match &found[..] {
        [id] => Ok(id.clone()),
        [] => Err(Error::not_found(format!(
            "there is no box directory '{wanted}' in {}; `boxlite gc --dry-run` lists those without a record",
            directory.display()
        ))),
        [one, other, ..] => Err(Error::invalid(format!(
            "'{wanted}' is ambiguous: the directories {one} and {other} both begin with it"
        ))),
    }
}

/// The record that the description gives, checked against the box's disk.
fn consistent(
    context: &LocalContext,
    paths: &BoxPaths,
    described: BoxDescription,
    notices: &mut Vec<String>,
) -> Result<(BoxRecord, Below)> {
    let mut record = described.record;
    name::check(&record.name)?;
    record.phase = Phase::Created;
    let overlay = paths.overlay();
    if overlay.symlink_metadata().is_err() {
        let below = Below { virtual_size: record.disk_image_size, bases: Vec::new(), image: Vec::new() };
        return Ok((record, below));
    }
    let below = overlay::below(&context.home, &overlay)?;
    let stem = below.image.first().and_then(|image| image.file_stem()).unwrap_or_default();
    // The disk of an imported box may hold all of it.
    if below.nearest().is_some() && stem != record.disk_digest.as_str() {
        let message = format!(
            "box.json says that box {} stands on the disk image {}, and its overlay stands on '{}'; the two do not \
             belong together",
            record.id,
            record.disk_digest,
            stem.to_string_lossy()
        );
        return Err(Error::corrupt(message).at(overlay));
    }
    record.phase =
        Phase::Ended { started_at: None, outcome: RunOutcome { at: None, exit_code: None, reason: None } };
    if std::mem::take(&mut record.options.auto_remove) {
        notices.push("the box was to be removed once it ended; it is not any more".to_owned());
    }
    Ok((record, below))
}

/// Records the box, under a made-up name where its own is taken.
fn insert(
    context: &LocalContext,
    mut record: BoxRecord,
    below: &Below,
    notices: &mut Vec<String>,
) -> Result<BoxRecord> {
    let own = record.name.clone();
    let mut bases = below.bases.clone();
    match snapshot::bases_of_snapshots(context, &record) {
        Ok(of_snapshots) => bases.extend(of_snapshots),
        Err(error) => {
            notices.push(format!("not all of its snapshots are here: {}", error.chain()));
        }
    }
    loop {
        match context.store.adopt_box(&record, &bases) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                record.name = name::made_up();
                record.options.name = None;
            }
            outcome => {
                outcome?;
                break;
            }
        }
    }
    if record.name != own {
        notices.push(format!("the name '{own}' is taken; the box is called '{}' now", record.name));
    }
    Ok(record)
}

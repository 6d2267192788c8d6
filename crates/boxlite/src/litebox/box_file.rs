//! Writing a whole box into one file, and making a box from such a file.
//!
//! # Trust
//! A file may come from anybody. So the new box reaches nothing of this host but what its importer names: published ports,
//! volumes, ports of the host's loopback, a kernel of the host's and its virtualisation are left out, and so are labels by which
//! a server knows whose a box is. The notices name what was left out.
//!
//! # Crash safety
//! The disk is written into the staged directory of the new box, which is trash until it is published (see
//! [`create::establish`]).

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::BoxPaths;
use boxlite_home::admission::SpaceGuard;
use boxlite_home::durable::{Staged, fault};
use boxlite_storage::box_file::{BoxFileReader, DiskSource};
use boxlite_storage::disk::overlay;
use boxlite_storage::disk_image::{self, ImageChain};
use boxlite_storage::image::Images;
use boxlite_types::{
    BoxFileDisk, BoxFileHead, BoxImportOptions, BoxOptions, BoxRecord, Digest, Doing, Error, ErrorKind,
    NetworkJoin, Phase, Platform, ProgressSink, PullPolicy, Restarts, Result,
};
use jiff::Timestamp;

use super::create::{self, Unrecorded};
use super::new_box::NewBox;
use super::start::lease_image;
use super::{BoxGuard, memory, name, named_volumes, snapshot};
use crate::context::LocalContext;

/// Labels with this beginning are a server's.
const SERVER_LABELS: &str = "boxlite.";

/// Returns a file's description of the box of `record`, except for the figures of its disk.
pub(crate) fn head(record: &BoxRecord, relative: bool) -> BoxFileHead {
    BoxFileHead {
        format: BoxFileHead::FORMAT,
        exported_at: Timestamp::now(),
        platform: Platform::host(),
        name: record.name.clone(),
        image: record.image.clone(),
        image_reference: record.image_reference.clone(),
        image_config: record.image_config.clone(),
        disk_digest: record.disk_digest.clone(),
        disk_image_size: record.disk_image_size,
        options: record.options.clone(),
        disk: BoxFileDisk { virtual_size: 0, relative, tables: 0, clusters: 0 },
    }
}

/// Opens the disk of the guarded box as it is, or as its snapshot has it. What was opened stays readable without the guard;
/// whether it still changes is for the caller to see to.
///
/// # Errors
/// `NotFound` without such a snapshot; `InvalidInput` for a relative file of a box whose disk stands on no image.
pub(crate) fn open_disk(
    context: &LocalContext,
    images: &Images,
    guard: &BoxGuard,
    top: &DiskTop,
    relative: bool,
    progress: &dyn ProgressSink,
) -> Result<DiskSource> {
    let record = &guard.record;
    let image = lease_image(context, images, guard, progress)?;
    if relative && image.is_none() {
        return Err(Error::invalid(format!(
            "box {} was imported with all of its disk, which stands on no image; export all of it",
            record.name
        )));
    }
    let top = match top {
        DiskTop::Overlay => Some(guard.paths.overlay()).filter(|overlay| overlay.exists()),
        DiskTop::Base(base) => Some(base.clone()),
        DiskTop::Snapshot(wanted) => snapshot::base_of(context, record, wanted)?,
    };
    let mut paths: Vec<PathBuf> = top.iter().cloned().collect();
    if let Some(top) = &top {
        paths.extend(overlay::below(&context.home, top)?.bases);
    }
    let virtual_size = record.options.disk_size.unwrap_or(record.disk_image_size).next_multiple_of(512);
    let source = DiskSource::open(&paths, image, virtual_size)?;
    // A guest that has taken over QEMU may claim any size, and the file would get that length.
    if source.virtual_size() > virtual_size {
        return Err(Error::corrupt(format!(
            "the disk of box {} says that it has {} bytes, and was given {virtual_size}",
            record.name,
            source.virtual_size()
        )));
    }
    Ok(source)
}

/// The state of a box's disk that is exported.
#[derive(Debug, Clone)]
pub(crate) enum DiskTop {
    /// Its overlay, of a box at rest.
    Overlay,
    /// A base that its overlay stands on.
    Base(PathBuf),
    /// A snapshot.
    Snapshot(String),
}

/// Makes a box of the file that `input` reads; with it come sentences that say what it did not get.
///
/// # Errors
/// `Corrupt` for what is no box file, or is damaged; `Unsupported` for one of another platform or format; `NotFound` when it needs an image
/// that is not here; `Conflict` when the name is taken; `ResourceExhausted` with the figures.
pub(crate) fn import(
    context: &Arc<LocalContext>,
    images: &Images,
    input: impl Read,
    wanted: &BoxImportOptions,
    progress: &dyn ProgressSink,
) -> Result<(NewBox, Vec<String>)> {
    if let Some(name) = &wanted.name {
        name::check(name)?;
    }
    let file = BoxFileReader::open(input)?;
    let (mut record, notices) = record_of(context, file.head().clone(), wanted)?;
    // Held until the overlay is durable.
    let image = if file.head().disk.relative { Some(image_of(images, &record, progress)?) } else { None };
    let space = SpaceGuard::new(&context.home, &context.settings)?;
    let keep = vec![record.disk_digest.clone()];
    let space = space.collecting(Arc::new(context.collector()), keep);
    space.check_before(file.disk_length())?;
    let _volumes = named_volumes::ensure(context, &record.named_volumes)?;
    create::establish(context, &mut record, Unrecorded::Import, |paths| {
        receive(context, file, image.as_ref(), paths, &space)?;
        Ok(Vec::new())
    })?;
    let new = NewBox::of(context, record);
    fault::point("import.recorded").doing("importing", &new.record().name)?;
    Ok((new, notices))
}

/// The record of the new box, and what it did not get.
fn record_of(
    context: &Arc<LocalContext>,
    head: BoxFileHead,
    wanted: &BoxImportOptions,
) -> Result<(BoxRecord, Vec<String>)> {
    if !Platform::host().accepts(&head.platform) {
        return Err(Error::unsupported(format!(
            "the box of the file is of {}, and boxes of this host are {}",
            head.platform,
            Platform::host()
        )));
    }
    let lie = |what: &str| Error::corrupt(format!("the box file's box.json has {what} that no box has"));
    name::check(&head.name).map_err(|error| lie("a name").because(error))?;
    head.image.parse::<Digest>().map_err(|error| lie("an image").because(error))?;
    Digest::from_hex(&head.disk_digest).map_err(|error| lie("a disk image").because(error))?;
    let BoxFileDisk { virtual_size, relative, clusters, .. } = head.disk;
    if head.disk_image_size == 0 || head.disk_image_size > virtual_size || (clusters == 0 && !relative) {
        return Err(lie("a disk"));
    }
    let mut notices = Vec::new();
    let mut options = without_host(head.options, &mut notices);
    options.name.clone_from(&wanted.name);
    options.image.clone_from(&head.image_reference);
    options.ports.clone_from(&wanted.ports);
    options.volumes.clone_from(&wanted.volumes);
    options.disk_size = (virtual_size > head.disk_image_size).then_some(virtual_size);
    create::check_mounts(context, &options)?;
    create::check(&options, &head.image_config, head.disk_image_size)?;
    memory::check(context, options.memory)?;
    let record = BoxRecord {
        id: name::new_id(),
        name: wanted.name.clone().unwrap_or(head.name),
        image: head.image,
        image_reference: head.image_reference,
        disk_digest: head.disk_digest,
        disk_image_size: head.disk_image_size,
        image_config: head.image_config,
        volumes: create::volumes(context, &options)?,
        named_volumes: named_volumes::asked_for(&options)?,
        memberships: Vec::new(),
        options,
        created_at: Timestamp::now(),
        phase: Phase::Created,
        restarts: Restarts::default(),
        snapshots: Vec::new(),
    };
    Ok((record, notices))
}

/// Takes out of a file's options what reaches the host.
fn without_host(mut options: BoxOptions, notices: &mut Vec<String>) -> BoxOptions {
    let mut leave_out = |is_asked_for: bool, what: &str| {
        if is_asked_for {
            notices.push(what.to_owned());
        }
    };
    let ports = std::mem::take(&mut options.ports);
    leave_out(
        !ports.is_empty(),
        &format!("ports {} are not published; publish them with -p", ports.join(", ")),
    );
    leave_out(
        std::mem::take(&mut options.publish_all),
        "the image's ports are not published; publish them with -p",
    );
    let volumes = std::mem::take(&mut options.volumes);
    let shown = volumes.join(", ");
    leave_out(
        !volumes.is_empty(),
        &format!("volumes {shown} are not mounted, and not in the file; mount some with -v"),
    );
    let ports = std::mem::take(&mut options.allow_host);
    leave_out(
        !ports.is_empty(),
        "the host's own ports are not reachable; `boxlite update --allow-host` allows some",
    );
    let networks = std::mem::take(&mut options.networks);
    for NetworkJoin { name, .. } in &networks {
        leave_out(
            true,
            &format!(
                "it is not in network {name}, which is another host's; `boxlite network connect` joins one"
            ),
        );
    }
    leave_out(options.kernel.take().is_some(), "it runs on boxlite's kernel, and not on one of its own");
    leave_out(std::mem::take(&mut options.nested), "it does not see the processor's virtualisation");
    leave_out(std::mem::take(&mut options.auto_remove), "it is not removed when it ends");
    options.labels.retain(|name, _| !name.starts_with(SERVER_LABELS));
    options.creation_key = None;
    options.pull = PullPolicy::default();
    (options.insecure, options.insecure_credentials) = (false, false);
    options
}

/// Leases the disk image that the record names, which the box's disk is relative to.
fn image_of(images: &Images, record: &BoxRecord, progress: &dyn ProgressSink) -> Result<ImageChain> {
    let image = images.find_blocking(&record.image).map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        Error::not_found(format!(
            "the file holds only what its box has changed on image {} ({}), which is not here; pull or load it first, or \
             export all of the box",
            record.image_reference, record.image
        ))
        .because(error)
    })?;
    if disk_image::digest(&image, record.disk_image_size) != record.disk_digest {
        return Err(Error::unsupported(format!(
            "the file holds only what its box has changed on disk image {}, and this version of boxlite builds another one of \
             image {}; export all of the box",
            record.disk_digest, record.image_reference
        )));
    }
    disk_image::ensure(images, &image, record.disk_image_size, progress)
}

fn receive(
    context: &LocalContext,
    file: BoxFileReader<impl Read>,
    image: Option<&ImageChain>,
    paths: &BoxPaths,
    space: &SpaceGuard,
) -> Result<()> {
    let staged = Staged::create(&context.home.tmp(), "import")?;
    let backing = image.map(|image| (image.top().path(), image.format()));
    file.receive(staged.file(), staged.path(), backing, |written| {
        fault::point("import.writing").doing("importing", paths.root())?;
        space.check_streaming(written)
    })?;
    staged.publish(&paths.overlay()).map(drop)
}

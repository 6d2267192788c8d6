//! All modules of the guest kernel as one read-only filesystem, which every box of this host has as a disk.
//!
//! # Layout
//!
//! The file lies beside the kernel that it belongs to, among the assets. Its root has one directory, the kernel's release, which is
//! what a system has in `/lib/modules`: the modules as they are loaded fastest, and the lists of [`super::module_index`].
//! The same modules give the same bytes.
//!
//! # Crash safety
//!
//! It is made in the kernel's directory under another name, synced and renamed. Nothing removes it but its kernel's removal.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use boxlite_ext4::{BuildOptions, LayerSource};
use boxlite_home::durable::{self, Staged};
use boxlite_types::{Doing, Error, Result};
use rustix::fs::Access;
use sha2::{Digest, Sha256};

use super::module_index::{self, IndexedModule};
use super::modules;

/// The file's name; it changes when the same modules would give other bytes.
const NAME: &str = "modules-2.ext4";

/// Bytes that must stay free beside it where it is made.
const SPARE: u64 = 1 << 30;

/// The least virtual size in bytes; most of it stays a hole.
const VIRTUAL_SIZE: u64 = 256 << 20;

/// Lists of the kernel's own that are taken as they are, where they are.
const OWN_LISTS: [&str; 3] = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];

/// Returns the image of the modules of the kernel in `kernel_dir`, if it was made.
pub fn find_module_image(kernel_dir: &Path) -> Option<PathBuf> {
    Some(kernel_dir.join(NAME)).filter(|path| path.is_file())
}

/// Returns the image of the modules of the kernel in `kernel_dir`, which is made where it is missing.
///
/// `None` where this user cannot write there, and where it would leave less than a gibibyte free.
/// Concurrent callers, in any process, make it once between them.
///
/// # Errors
/// `NotFound` or `Corrupt` for modules that are not there or not readable; `Io` when writing fails.
pub fn module_image(kernel_dir: &Path) -> Result<Option<PathBuf>> {
    let path = kernel_dir.join(NAME);
    loop {
        if path.is_file() {
            return Ok(Some(path));
        }
        if rustix::fs::access(kernel_dir, Access::WRITE_OK).is_err() {
            return Ok(None);
        }
        let archive = archive(kernel_dir)?;
        if durable::free_space(kernel_dir)?.bytes < SPARE + archive.len() as u64 * 2 {
            return Ok(None);
        }
        let Some(staged) = Staged::take_over(kernel_dir, &format!(".{NAME}.partial"))? else {
            super::cache::pause_before_retry();
            continue;
        };
        if path.is_file() {
            return Ok(Some(path));
        }
        staged.file().set_len(0).doing("emptying", staged.path())?;
        build(archive, &staged)?;
        // Every user of this host's assets has it.
        durable::restrict(staged.path(), 0o644)?;
        staged.publish(&path)?;
        return Ok(Some(path));
    }
}

fn build(archive: Vec<u8>, staged: &Staged) -> Result<()> {
    let diff_id: [u8; 32] = Sha256::digest(&archive).into();
    let mut options = BuildOptions::new(diff_id);
    options.virtual_size = VIRTUAL_SIZE.max((archive.len() as u64 * 2).next_multiple_of(1 << 20));
    let layer = LayerSource {
        reader: Box::new(Cursor::new(archive)),
        label: "the kernel's modules".into(),
        diff_id,
        blob_digest: None,
    };
    boxlite_ext4::build(vec![layer], staged.file(), &options, &mut |_| ControlFlow::Continue(())).map_err(
        |error| Error::unsupported("the image of the kernel's modules cannot be built").because(error),
    )?;
    Ok(())
}

/// The tree as a tar archive, with nothing in it that depends on where and when it is made.
fn archive(kernel_dir: &Path) -> Result<Vec<u8>> {
    let tree = kernel_dir.join("modules");
    let mut out = tar::Builder::new(Vec::new());
    let mut indexed = BTreeMap::new();
    let mut release = None;
    let mut files = Vec::new();
    for (name, path) in modules::files_by_name(&tree)? {
        // fetch-kernel unpacks what its distribution has compressed; the kernel would not load the rest.
        if path.extension().is_none_or(|extension| extension != "ko") {
            continue;
        }
        let mut bytes = std::fs::read(&path).doing("reading the kernel module", &path)?;
        let unreadable = || {
            Error::corrupt(format!("the kernel module {} is not a readable ELF object", path.display()))
                .at(&path)
        };
        let facts = modules::facts(&bytes).ok_or_else(unreadable)?;
        release = release.or_else(|| modules::release(&bytes));
        modules::strip(&mut bytes);
        let below = path.strip_prefix(&tree).unwrap_or(&path).to_str().ok_or_else(unreadable)?.to_owned();
        files.push((below.clone(), bytes));
        let module = IndexedModule { path: below, dependencies: facts.dependencies, aliases: facts.aliases };
        indexed.insert(name, module);
    }
    let release = release
        .ok_or_else(|| Error::not_found(format!("no kernel module is below {}", tree.display())).at(&tree))?;
    for list in OWN_LISTS {
        match std::fs::read(tree.join(list)) {
            Ok(bytes) => files.push((list.to_owned(), bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("reading", tree.join(list), error)),
        }
    }
    let lists = module_index::files(&indexed, &modules::built_in(&tree)?);
    files.extend(lists.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
    files.sort();
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, format!("{release}/{path}"), &*bytes)
            .doing("packing the kernel's modules in", &tree)?;
    }
    out.into_inner().doing("packing the kernel's modules in", &tree)
}

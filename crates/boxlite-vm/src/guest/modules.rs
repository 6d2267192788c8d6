//! Which kernel modules to load, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, Result};
use object::{Object, ObjectSection};

use super::cache::BootInput;

/// Marks a signature at the end of a module; before it lies a 12-byte header whose last four bytes are its length.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// The list of modules that the kernel has built in, below its tree.
const BUILT_IN: &str = "modules.builtin";

/// A module as it goes into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Canonical name, with underscores.
    pub(super) name: String,
    /// The ELF object, without its signature: checking one takes a guest longer than loading the module, and a
    /// module that a distribution's kernel accepts unsigned is trusted as much as the initramfs it lies in. Also
    /// without its types for BPF, which a guest would check first and has no use for.
    pub(super) bytes: Vec<u8>,
}

/// The state of a walk from module to module.
struct Walk<'a> {
    tree: &'a Path,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    done: BTreeSet<String>,
    modules: Vec<Module>,
    inputs: Vec<BootInput>,
}

/// For each of the lists `wanted`, its modules and everything they depend on that no earlier list has, each after its
/// dependencies; what is built in is left out. With them every file that was read for it.
///
/// # Errors
/// `NotFound` for a module that is neither below `tree` nor built in; `Corrupt` for one that can't be read.
pub(super) fn closures<const N: usize>(
    tree: &Path,
    wanted: [&[&str]; N],
) -> Result<([Vec<Module>; N], Vec<BootInput>)> {
    let inputs = vec![BootInput::of(tree, &tree.join(BUILT_IN))];
    let (files, built_in) = (files_by_name(tree)?, built_in(tree)?);
    let (done, modules) = (BTreeSet::new(), Vec::new());
    let mut walk = Walk { tree, files, built_in, done, modules, inputs };
    let mut lists = [const { Vec::new() }; N];
    for (list, names) in lists.iter_mut().zip(wanted) {
        for name in names {
            walk.visit(&canonical(name))?;
        }
        *list = std::mem::take(&mut walk.modules);
    }
    Ok((lists, walk.inputs))
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) -> Result<()> {
        // Marked before its dependencies are visited, so that a cycle ends.
        if self.built_in.contains(name) || !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            let message = format!(
                "the kernel module {name} is missing below {}; run scripts/setup",
                self.tree.display()
            );
            return Err(Error::not_found(message).at(self.tree));
        };
        if path.extension().is_none_or(|extension| extension != "ko") {
            let message =
                format!("the kernel module {} is compressed, which boxlite can't unpack", path.display());
            return Err(Error::unsupported(message).at(path));
        }
        self.inputs.push(BootInput::of(self.tree, path));
        let mut bytes = std::fs::read(path).doing("reading the kernel module", path)?;
        let dependencies = dependencies(&bytes).ok_or_else(|| {
            let message = format!("the kernel module {} is not a readable ELF object", path.display());
            Error::corrupt(message).at(path)
        })?;
        for dependency in dependencies {
            self.visit(&dependency)?;
        }
        strip(&mut bytes);
        self.modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

/// Module names use `-` and `_` interchangeably; the kernel shows `_`.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(path: &Path) -> Option<String> {
    let (stem, rest) = path.file_name()?.to_str()?.split_once('.')?;
    matches!(rest, "ko" | "ko.xz" | "ko.zst" | "ko.gz").then(|| canonical(stem))
}

/// The files of all modules below `tree` by canonical name.
pub(super) fn files_by_name(tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![tree.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).doing("reading the kernel modules in", &directory)? {
            let entry = entry.doing("reading the kernel modules in", &directory)?;
            let path = entry.path();
            // `build` and `source` are symlinks out of the tree, and not followed.
            if entry.file_type().doing("examining", &path)?.is_dir() {
                pending.push(path);
            } else if let Some(name) = module_name(&path) {
                files.insert(name, path);
            }
        }
    }
    Ok(files)
}

/// The canonical names of the modules that the kernel has built in.
pub(super) fn built_in(tree: &Path) -> Result<BTreeSet<String>> {
    let path = tree.join(BUILT_IN);
    match std::fs::read_to_string(&path) {
        Ok(list) => Ok(list.lines().filter_map(|line| module_name(Path::new(line))).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(Error::io("reading", &path, error)),
    }
}

/// The `depends=` entry of a module's `.modinfo`; `None` when there is no such section or entry.
fn dependencies(module: &[u8]) -> Option<Vec<String>> {
    facts(module).map(|facts| facts.dependencies)
}

/// The facts that a module states of itself.
pub(super) struct ModuleFacts {
    /// Canonical names of the modules that it uses.
    pub(super) dependencies: Vec<String>,
    /// The names by which the kernel asks for it, with wildcards.
    pub(super) aliases: Vec<String>,
}

/// The facts in a module's `.modinfo`; `None` when there is no such section, or no `depends=` in it.
pub(super) fn facts(module: &[u8]) -> Option<ModuleFacts> {
    let object = object::File::parse(module).ok()?;
    let info = object.section_by_name(".modinfo")?.data().ok()?;
    let entries = |name: &'static [u8]| {
        let values = info.split(|byte| *byte == 0).filter_map(move |entry| entry.strip_prefix(name));
        values.filter_map(|value| std::str::from_utf8(value).ok())
    };
    let list = entries(b"depends=").next()?;
    Some(ModuleFacts {
        dependencies: list.split(',').filter(|name| !name.is_empty()).map(canonical).collect(),
        aliases: entries(b"alias=").map(ToOwned::to_owned).collect(),
    })
}

/// The release of the kernel that a module was made for.
pub(super) fn release(module: &[u8]) -> Option<String> {
    let object = object::File::parse(module).ok()?;
    let info = object.section_by_name(".modinfo")?.data().ok()?;
    let magic = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"vermagic="))?;
    let release = std::str::from_utf8(magic).ok()?.split(' ').next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+~".contains(&byte);
    (release.bytes().all(plain) && !matches!(release, "" | "." | "..")).then(|| release.to_owned())
}

/// Leaves out of a module what a guest would check before it loads it, and has no use for: see [`Module::bytes`].
pub(super) fn strip(module: &mut Vec<u8>) {
    drop_types(module);
    module.truncate(unsigned_length(module));
}

/// Empties the `.BTF` section of a 64-bit ELF object: its size, at byte 32 of its section header, becomes 0.
fn drop_types(module: &mut [u8]) {
    const HEADER_LENGTH: usize = 64;
    let header = || {
        let index = object::File::parse(&*module).ok()?.section_by_name(".BTF")?.index().0;
        let table = u64::from_le_bytes(module.get(40..48)?.try_into().ok()?);
        usize::try_from(table).ok()?.checked_add(index * HEADER_LENGTH)
    };
    if let Some(size) = header().and_then(|at| module.get_mut(at + 32..at + 40)) {
        size.fill(0);
    }
}

fn unsigned_length(module: &[u8]) -> usize {
    let unsigned = || {
        let signed = module.strip_suffix(SIGNATURE_MARK)?;
        let (_, length) = signed.split_last_chunk::<4>()?;
        signed.len().checked_sub(12 + u32::from_be_bytes(*length) as usize)
    };
    unsigned().unwrap_or(module.len())
}

#[cfg(test)]
pub(super) mod tests;

//! The boot files of a virtual machine: the uncompressed kernel, and an initramfs of the guest agent and the few kernel
//! modules it loads.
//!
//! Both are derived from a directory with a distribution's `vmlinuz` and `modules/`, and from the agent's binary. They
//! are made once and kept under names that carry the identity of what they were made from, so that a start finds
//! them with a dozen `stat` calls. Nothing is ever changed in place: a new kernel or agent gets new names, and a module
//! that was replaced a new file at the old name.
//!
//! All other modules come to a guest in an image of their own, which lies beside the kernel: [`module_image`].

mod cache;
mod cpio;
mod kernel;
mod module_image;
mod module_index;
mod modules;

use std::path::{Path, PathBuf};

use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Error, ErrorKind, Result};
use cache::{BootInput, identity, key};
pub use module_image::{find_module_image, module_image};

/// Part of every cache name; raised when the bytes made from the same input change.
const FORMAT: u32 = 7;

/// The files that boots are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSources {
    /// Directory with `vmlinuz` (a bzImage) and `modules/` (the tree below `/lib/modules/<release>`); or a kernel by itself
    /// that needs no modules, because it has built in what a guest needs: virtio over ACPI's MMIO devices, its console and
    /// disk, and ext4. A kernel is never given the modules of another.
    pub kernel_dir: PathBuf,
    /// The statically linked guest agent.
    pub agent: PathBuf,
}

/// Devices that a guest needs drivers for, besides its disk and the agent's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestDevices {
    /// A network interface.
    pub network: bool,
    /// Host directories over virtiofs.
    pub shares: bool,
    /// The PCI transport instead of virtio-mmio.
    pub pci: bool,
}

/// Files for QEMU's `-kernel` and `-initrd`.
#[derive(Debug)]
pub struct BootFiles {
    /// The uncompressed kernel, with a PVH entry.
    pub kernel: PathBuf,
    /// The initramfs; its `/init` is the agent.
    pub initramfs: PathBuf,
    /// While these are held gc removes neither; a process that maps the files leases them again before they end.
    pub leases: [Leased; 2],
}

impl GuestDevices {
    /// Modules for the way to the agent's port; what they depend on is added by [`modules::closures`].
    fn transport(self) -> [&'static str; 2] {
        [if self.pci { "virtio_pci" } else { "virtio_mmio" }, "virtio_console"]
    }

    /// Modules for what the guest touches once the host has said how to come up.
    fn devices(self) -> Vec<&'static str> {
        let mut names = vec!["virtio_blk"];
        if self.network {
            names.push("virtio_net");
        }
        if self.shares {
            names.push("virtiofs");
        }
        names
    }

    fn tag(self) -> String {
        let flag = |set: bool, letter: char| set.then_some(letter);
        ["b".to_owned()]
            .into_iter()
            .chain(
                [flag(self.network, 'n'), flag(self.shares, 's'), flag(self.pci, 'p')]
                    .into_iter()
                    .flatten()
                    .map(String::from),
            )
            .collect()
    }
}

/// Finds or makes the boot files for `devices` in `cache`, using `staging` (on the same filesystem) for unfinished ones.
///
/// Concurrent callers, in any process, make them once between them. Both files are leased, and their use is noted.
///
/// # Errors
/// `NotFound` when the kernel, its modules or the agent is missing; `Corrupt` or `Unsupported` when the kernel image
/// is not one that can be unpacked.
pub fn boot_files(
    sources: &BootSources,
    devices: GuestDevices,
    cache: &Path,
    staging: &Path,
) -> Result<BootFiles> {
    let (image, tree) = if sources.kernel_dir.is_file() {
        (sources.kernel_dir.clone(), None)
    } else {
        (sources.kernel_dir.join("vmlinuz"), Some(sources.kernel_dir.join("modules")))
    };
    let image_identity = identity(&image, "the guest kernel")?;
    let tree_identity = match &tree {
        Some(tree) => identity(tree, "the guest kernel's modules")?,
        None => "none".to_owned(),
    };
    let agent_identity = identity(&sources.agent, "the guest agent")?;

    let kernel = cache.join(format!("vmlinux-{}", key(&[&image_identity])));
    let unpack = || {
        let packed = std::fs::read(&image).doing("reading the guest kernel", &image)?;
        kernel::unpack(&packed).map_err(|e| kernel_error(&e, &image))
    };
    let kernel_lease = cache::lease_or_make(&kernel, staging, &|_| true, &unpack)?;
    let name =
        format!("initramfs-{}-{}", devices.tag(), key(&[&image_identity, &tree_identity, &agent_identity]));
    let initramfs = cache.join(name);
    let assemble = || {
        let agent = std::fs::read(&sources.agent).doing("reading the guest agent", &sources.agent)?;
        let (lists, inputs) = match &tree {
            Some(tree) => {
                let (mut transport, mut others) = (devices.transport().to_vec(), devices.devices());
                let present = modules::files_by_name(tree)?;
                // A guest whose kernel has none keeps what it frees.
                if present.contains_key(BALLOON) {
                    transport.push(BALLOON);
                }
                // One whose kernel has none has its shares from the start.
                if devices.shares && present.contains_key(PLUG) {
                    others.push(PLUG);
                }
                modules::closures(tree, [&transport, &others])?
            }
            None => ([Vec::new(), Vec::new()], Vec::new()),
        };
        archive(&agent, &lists, &inputs)
    };
    let made_of_these = |found: &std::fs::File| tree.as_ref().is_none_or(|tree| cache::made_of(found, tree));
    let initramfs_lease = cache::lease_or_make(&initramfs, staging, &made_of_these, &assemble)?;
    Ok(BootFiles { kernel, initramfs, leases: [kernel_lease, initramfs_lease] })
}

/// The driver by which a guest tells the host what it has freed. It is bound before the guest becomes a template, and holds
/// nothing of a box.
const BALLOON: &str = "virtio_balloon";

/// The driver of shares that are plugged into a guest that waits for its box.
const PLUG: &str = "virtio_pci";

/// Names of the lists in `/modules`.
const LISTS: [&str; 2] = ["transport", "devices"];

/// The initramfs: what it was made of, `/init`, the modules, and lists in `/modules` that name them in the order to load.
fn archive(agent: &[u8], lists: &[Vec<modules::Module>; 2], inputs: &[BootInput]) -> Result<Vec<u8>> {
    if !agent.starts_with(b"\x7fELF") {
        return Err(Error::corrupt("the guest agent is not an ELF program"));
    }
    let mut out = cpio::Archive::new();
    out.file(cache::INPUTS, 0o600, BootInput::list(inputs).as_bytes());
    for directory in ["dev", "modules", "root", "sys"] {
        out.directory(directory, 0o755);
    }
    out.file("init", 0o755, agent);
    for (name, modules) in LISTS.iter().zip(lists) {
        let mut order = String::new();
        for module in modules {
            out.file(&format!("modules/{}.ko", module.name), 0o644, &module.bytes);
            order.push_str(&module.name);
            order.push('\n');
        }
        out.file(&format!("modules/{name}"), 0o644, order.as_bytes());
    }
    Ok(out.finish())
}

fn kernel_error(error: &kernel::UnpackError, path: &Path) -> Error {
    let kind = match error {
        kernel::UnpackError::Unsupported(_) => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("the guest kernel {} can't be unpacked: {error}", path.display())).at(path)
}

#[cfg(test)]
mod tests;

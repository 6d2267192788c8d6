//! Loads a kernel module on demand, as the program that the kernel runs when it needs one.
//!
//! The kernel runs `HELPER -q -- NAME`, in the guest's first namespaces and with all rights; `iptables` of an image runs
//! `HELPER NAME`. A name is that of a module, or one that modules have as an alias. What a module needs is loaded before
//! it. The lists were made with the modules, by boxlite, on the host.
//!
//! The first request mounts the modules' disk.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::{devices, linux};

/// The agent's directory in the box.
pub(crate) const DIRECTORY: &str = "/dev/.boxlite";

/// The path by which the agent's program is run for this; it is mounted there.
pub(crate) const HELPER: &str = "/dev/.boxlite/modprobe";

/// Where the modules' disk is mounted.
const MODULES: &str = "/dev/.boxlite/modules";

/// Where a system has its modules.
const USUAL: &str = "/lib/modules";

/// Mounts the modules, unless they are.
pub(crate) fn provide() -> io::Result<()> {
    // Released with the descriptor, when the first of several has done it.
    let helper = File::open(HELPER)?;
    rustix::fs::flock(&helper, rustix::fs::FlockOperation::LockExclusive)?;
    if tree().is_dir() {
        return Ok(());
    }
    let disk = devices::modules_disk()?;
    fs::create_dir_all(MODULES)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(disk, MODULES, "ext4", flags, Some(c"noload,no_prefetch_block_bitmaps"))?;
    // An image that has nothing where modules are is given no such place.
    if !fs::metadata("/lib").is_ok_and(|lib| lib.is_dir()) {
        return Ok(());
    }
    match fs::create_dir(USUAL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // The helper does without; the root may be read-only.
        Err(_) => return Ok(()),
        Ok(()) => {}
    }
    // Something of the image's that is not a directory is left alone: the helper does without.
    match rustix::mount::mount_bind(MODULES, USUAL) {
        Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => Ok(()),
        bound => Ok(bound?),
    }
}

/// The directory of the running kernel's modules.
fn tree() -> PathBuf {
    Path::new(MODULES).join(rustix::system::uname().release().to_string_lossy().as_ref())
}

/// Serves as `modprobe` if this program was called so. Returns its exit status then.
pub(crate) fn serve(mut arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    if arguments.next()? != HELPER {
        return None;
    }
    if let Err(error) = provide() {
        linux::kernel_log(&format!("providing the kernel's modules failed: {error}"));
        eprintln!("modprobe: providing the kernel's modules failed: {error}");
        return Some(1);
    }
    // Options change how modprobe tells of failures, which nobody hears of here.
    let names =
        arguments.filter_map(|argument| argument.into_string().ok()).filter(|name| !name.starts_with('-'));
    let loaded = names.map(|name| load(&tree(), &name)).fold(Ok(()), Result::and);
    if let Err(reason) = &loaded {
        eprintln!("modprobe: {reason}");
    }
    Some(i32::from(loaded.is_err()))
}

fn load(tree: &Path, wanted: &str) -> Result<(), String> {
    let read = |list: &str| {
        fs::read_to_string(tree.join(list))
            .map_err(|error| format!("reading {list} of {}: {error}", tree.display()))
    };
    let dependencies = read("modules.dep")?;
    let wanted = normal(wanted);
    if let Some(files) = files_of(&dependencies, &wanted) {
        return load_all(tree, &files);
    }
    if read("modules.builtin").is_ok_and(|list| list.lines().any(|path| module_name(path) == wanted)) {
        return Ok(());
    }
    let aliases = read("modules.alias")?;
    let mut found = false;
    for module in by_alias(&aliases, &wanted) {
        if let Some(files) = files_of(&dependencies, module) {
            load_all(tree, &files)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(format!("no module is called {wanted}")) }
}

/// The files of a module and of all that it needs, in the order to load them.
fn files_of<'a>(dependencies: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    dependencies.lines().find_map(|line| {
        let (own, needed) = line.split_once(':')?;
        (module_name(own) == wanted).then(|| needed.split_whitespace().rev().chain([own]).collect())
    })
}

fn load_all(tree: &Path, files: &[&str]) -> Result<(), String> {
    for file in files {
        let opened = File::open(tree.join(file)).map_err(|error| format!("opening {file}: {error}"))?;
        match rustix::system::finit_module(&opened, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                let reason = format!("loading {file}: {error}");
                // The kernel's own request has no other place for it.
                linux::kernel_log(&reason);
                return Err(reason);
            }
        }
    }
    Ok(())
}

/// The modules that have an alias that fits.
fn by_alias<'a>(aliases: &'a str, wanted: &str) -> impl Iterator<Item = &'a str> {
    aliases.lines().filter_map(move |line| {
        let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
        fits(pattern.as_bytes(), wanted.as_bytes()).then_some(module)
    })
}

/// The canonical name of the module in the file at `path`.
fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    normal(name.split('.').next().unwrap_or(name))
}

/// Names use `-` and `_` interchangeably.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Whether `text` fits a pattern with `*`, `?` and sets of characters.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| fits(rest, &text[skipped..])),
        ([b'?', rest @ ..], [_, text @ ..]) => fits(rest, text),
        ([b'[', rest @ ..], [byte, text @ ..]) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let set = &rest[..end];
            let in_range =
                set.windows(3).any(|range| range[1] == b'-' && (range[0]..=range[2]).contains(byte));
            (in_range || set.contains(byte)) && fits(&rest[end + 1..], text)
        }
        ([byte, rest @ ..], [found, text @ ..]) => byte == found && fits(rest, text),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str =
        "kernel/net/veth.ko:\nkernel/net/nf-nat.ko: kernel/net/nf_conntrack.ko kernel/lib/crc.ko\n";

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let nat = ["kernel/lib/crc.ko", "kernel/net/nf_conntrack.ko", "kernel/net/nf-nat.ko"];
        assert_eq!(files_of(DEPENDENCIES, "nf_nat").unwrap(), nat);
        assert_eq!(files_of(DEPENDENCIES, "veth").unwrap(), ["kernel/net/veth.ko"]);
        assert_eq!(files_of(DEPENDENCIES, "nat"), None);
    }

    #[test]
    fn aliases_are_patterns() {
        let aliases = "alias fs_overlay overlay\nalias char_major_10_229 fuse\nalias virtio:d0000001Fv* vdev\n\
                       alias cpu:type:x86,ven*fam*mod*:feature:*00[0-9A]1* aes\n";
        let found = |wanted: &str| by_alias(aliases, &normal(wanted)).collect::<Vec<_>>();
        assert_eq!(found("fs-overlay"), ["overlay"]);
        assert_eq!(found("char-major-10-229"), ["fuse"]);
        assert_eq!(found("virtio:d0000001Fv00001AF4"), ["vdev"]);
        assert_eq!(found("cpu:type:x86,ven0000fam0006mod:feature:,00A1,"), ["aes"]);
        assert!(found("cpu:type:x86,ven0000fam0006mod:feature:,00B1,").is_empty());
        assert!(found("fs-over").is_empty() && found("fs-overlay2").is_empty());
    }

    #[test]
    fn only_its_own_path_makes_the_program_modprobe() {
        let serve = |arguments: &[&str]| serve(arguments.iter().map(OsString::from));
        assert_eq!(serve(&["/init"]), None);
        assert_eq!(serve(&["/sbin/modprobe", "overlay"]), None);
        assert_eq!(serve(&[]), None);
    }
}

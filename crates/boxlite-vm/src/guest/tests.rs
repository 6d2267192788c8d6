use std::os::unix::fs::MetadataExt;

use super::*;

fn devices() -> impl Iterator<Item = GuestDevices> {
    (0..8u8).map(|bits| GuestDevices { network: bits & 1 != 0, shares: bits & 2 != 0, pci: bits & 4 != 0 })
}

#[test]
fn each_device_set_has_a_tag_of_its_own() {
    let tags: std::collections::BTreeSet<_> = devices().map(GuestDevices::tag).collect();
    assert_eq!(tags.len(), devices().count());
}

/// A bzImage-free world: the "kernel" is an ELF header, which unpacks to itself.
fn sources(at: &Path) -> BootSources {
    std::fs::create_dir_all(at.join("k/modules")).unwrap();
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    std::fs::write(at.join("k/vmlinuz"), &elf).unwrap();
    std::fs::write(at.join("agent"), &elf).unwrap();
    let built_in = "x/virtio_mmio.ko\nx/virtio_console.ko\nx/virtio_blk.ko\n";
    std::fs::write(at.join("k/modules/modules.builtin"), built_in).unwrap();
    std::fs::create_dir(at.join("cache")).unwrap();
    BootSources { kernel_dir: at.join("k"), agent: at.join("agent") }
}

fn inode(files: &BootFiles) -> u64 {
    std::fs::metadata(&files.initramfs).unwrap().ino()
}

/// Replaced by a rename, overwritten in place, and the list of what is built in: each is noticed although the tree's own
/// directory is as it was. Mutation tried: taking every initramfs that is found.
#[test]
fn a_module_that_was_replaced_in_place_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let sources = sources(scratch.path());
    let (tree, cache) = (sources.kernel_dir.join("modules"), scratch.path().join("cache"));
    std::fs::create_dir(tree.join("kernel")).unwrap();
    std::fs::write(tree.join("modules.builtin"), "x/virtio_mmio.ko\nx/virtio_console.ko\n").unwrap();
    let blk = tree.join("kernel/virtio_blk.ko");
    std::fs::write(&blk, modules::tests::module("depends=\0version=1\0")).unwrap();
    let make = || boot_files(&sources, GuestDevices::default(), &cache, &cache).unwrap();
    let holds = |files: &BootFiles, text: &[u8]| {
        std::fs::read(&files.initramfs).unwrap().windows(text.len()).any(|window| window == text)
    };
    let first = make();
    assert!(holds(&first, b"version=1"));
    assert_eq!(inode(&make()), inode(&first));

    let other = scratch.path().join("other.ko");
    std::fs::write(&other, modules::tests::module("depends=\0version=2\0")).unwrap();
    std::fs::rename(&other, &blk).unwrap();
    let second = make();
    assert!(holds(&second, b"version=2"));
    std::fs::write(&blk, modules::tests::module("depends=\0version=3\0")).unwrap();
    let third = make();
    assert!(holds(&third, b"version=3"));
    let built_in = "x/virtio_mmio.ko\nx/virtio_console.ko\nx/virtio_blk.ko\n";
    std::fs::write(tree.join("modules.builtin"), built_in).unwrap();
    assert!(!holds(&make(), b"version=3"));
}

/// Mutation tried: leaving the agent out of the initramfs' key returns the old one after an upgrade.
#[test]
fn files_are_made_once_and_anew_when_their_source_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let sources = sources(scratch.path());
    let cache = scratch.path().join("cache");
    let make = || boot_files(&sources, GuestDevices::default(), &cache, &cache).unwrap();
    let first = make();
    let made = inode(&first);
    let again = make();
    assert_eq!((&again.kernel, &again.initramfs), (&first.kernel, &first.initramfs));
    assert_eq!(inode(&again), made, "made again although nothing changed");

    std::fs::write(&sources.agent, b"\x7fELF another agent").unwrap();
    let second = make();
    assert_eq!(second.kernel, first.kernel);
    assert_ne!(second.initramfs, first.initramfs);
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    let scratch = tempfile::tempdir().unwrap();
    let sources = sources(scratch.path());
    let cache = scratch.path().join("cache");
    std::fs::write(&sources.agent, b"#!/bin/sh").unwrap();
    let error = boot_files(&sources, GuestDevices::default(), &cache, &cache).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    std::fs::remove_file(&sources.agent).unwrap();
    let error = boot_files(&sources, GuestDevices::default(), &cache, &cache).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("scripts/setup"), "{error}");
}

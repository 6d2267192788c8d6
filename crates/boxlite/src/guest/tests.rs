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

/// Mutation tried: leaving the agent out of the initramfs' key returns the old one after an upgrade.
#[test]
fn files_are_made_once_and_anew_when_their_source_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let sources = sources(scratch.path());
    let cache = scratch.path().join("cache");
    let make = || boot_files(&sources, GuestDevices::default(), &cache, &cache).unwrap();
    let first = make();
    let made = identity(&first.initramfs, "it").unwrap();
    assert_eq!(make(), first);
    assert_eq!(identity(&first.initramfs, "it").unwrap(), made, "made again although nothing changed");

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

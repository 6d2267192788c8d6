//! Mounts, enters and grows the root filesystem, and makes it read-only.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::mount::MountFlags;

use crate::linux;

/// The only disk of a box without named volumes.
pub(super) const DEVICE: &str = "/dev/vda";

/// `discard` returns space that the guest frees to the host. `noinit_itable` and `no_prefetch_block_bitmaps` keep kernel
/// threads from filling the disk's file with zeroed inode tables of unused groups, and from reading their bitmaps.
pub(super) const OPTIONS: &CStr = c"discard,noinit_itable,no_prefetch_block_bitmaps";

const MOUNT_POINT: &str = "/root";

/// Mounts the disk `device`.
pub(super) fn mount(device: &str) -> Result<(), String> {
    rustix::mount::mount(device, MOUNT_POINT, "ext4", MountFlags::RELATIME, Some(OPTIONS)).map_err(|error| {
        if error == rustix::io::Errno::INVAL {
            return format!("there is no ext4 filesystem on the disk {device}");
        }
        format!("mounting the root filesystem on {device} failed: {error}")
    })
}

/// Makes the mounted disk this process' root directory. Nothing reaches the initramfs and its mounts after that.
pub(super) fn enter() -> Result<(), String> {
    let step = |doing: &str, outcome: rustix::io::Result<()>| {
        outcome.map_err(|e| format!("{doing} the root filesystem failed: {e}"))
    };
    step("entering", rustix::process::chdir(MOUNT_POINT))?;
    step("moving", rustix::mount::mount_move(".", "/"))?;
    step("changing to", rustix::process::chroot("."))?;
    step("entering", rustix::process::chdir("/"))
}

/// Grows the entered filesystem to the size of its `disk`, if that is larger by at least one block group.
pub(super) fn grow(disk: &str) -> Result<(), String> {
    let device = File::open(disk).map_err(|e| format!("opening the disk {disk} failed: {e}"))?;
    let DiskLengths { block_size, blocks, device_bytes } =
        examine(&device).map_err(|e| format!("examining the disk {disk} failed: {e}"))?;
    if block_size == 0 {
        return Ok(());
    }
    let target = device_bytes / block_size;
    let group = block_size * 8;
    if target < blocks + group {
        return Ok(());
    }
    let describe = |e: &dyn std::fmt::Display| {
        let from = blocks * block_size;
        format!("growing the root filesystem from {from} to {device_bytes} bytes failed: {e}")
    };
    let root = File::open("/").map_err(|e| describe(&e))?;
    linux::resize_ext4(root.as_fd(), target).map_err(|e| describe(&e))
}

/// Makes the entered filesystem read-only: the whole of it, under whatever path it is mounted.
pub(super) fn make_read_only() -> Result<(), String> {
    rustix::mount::mount_remount("/", MountFlags::RDONLY | MountFlags::RELATIME, "")
        .map_err(|e| format!("making the root filesystem read-only failed: {e}"))
}

/// Sizes of the disk and of the filesystem on it.
struct DiskLengths {
    block_size: u64,
    blocks: u64,
    device_bytes: u64,
}

/// Reads the sizes from the superblock (Linux `Documentation/filesystems/ext4/super.rst`) and from the device.
fn examine(device: &File) -> std::io::Result<DiskLengths> {
    let mut superblock = [0; 1024];
    device.read_exact_at(&mut superblock, 1024)?;
    let field = |at: usize| {
        u64::from(u32::from_le_bytes([
            superblock[at],
            superblock[at + 1],
            superblock[at + 2],
            superblock[at + 3],
        ]))
    };
    let wide = field(0x60) & 0x80 != 0;
    let blocks = field(0x4) | if wide { field(0x150) << 32 } else { 0 };
    let block_size = 1024_u64.checked_shl(field(0x18) as u32).unwrap_or(0);
    let device_bytes = rustix::fs::seek(device, rustix::fs::SeekFrom::End(0))?;
    Ok(DiskLengths { block_size, blocks, device_bytes })
}

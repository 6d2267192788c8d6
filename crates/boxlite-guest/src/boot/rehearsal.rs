//! A rehearsal of what a guest does for its box, before it has one and to no effect.
//!
//! In an emulated guest, code that runs for the first time costs a multiple of what it costs afterwards, the kernel's as well
//! as the agent's, and nothing of that is kept in a template. A guest that waits for its box has the time: it mounts a disk, runs
//! a program and sets up a root directory once.
//!
//! All of it is done by a child in namespaces of its own, and nothing of it outlasts the child: the disk is the one with the
//! kernel's modules, which is read-only and every box's, and its driver lets go of it again, so that the root disk is the first
//! disk. A step that fails ends the rehearsal, and costs nothing but time later.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use boxlite_proto::BootConfig;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, WaitOptions};

use super::{etc, network, root, set_limits, tree};
use crate::devices;
use crate::linux::{self, ForkSide};

/// Seconds after which the child is ended, whatever it waits for.
const LIMIT_SECONDS: u32 = 10;

/// An empty directory of the initramfs.
const PLACE: &str = "/root";

/// Rehearses; returns when nothing of it is left.
pub(crate) fn rehearse() {
    let disk = devices::modules_disk();
    match linux::fork() {
        Ok(ForkSide::Child) => {
            linux::reset_signals();
            linux::end_after(LIMIT_SECONDS);
            let done = act(disk.as_deref().ok());
            linux::exit_child(done.is_err().into());
        }
        Ok(ForkSide::Parent(child)) => await_end(child),
        Err(_) => {}
    }
    if disk.is_ok() {
        devices::release_modules_disk();
    }
}

fn act(disk: Option<&Path>) -> io::Result<()> {
    linux::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWNET)?;
    if let Some(disk) = disk {
        read_disk(disk)?;
    }
    run_program()?;
    rustix::mount::mount("tmpfs", PLACE, "tmpfs", MountFlags::NOSUID, None)?;
    // As the box will, with names of nobody.
    let prepared = etc::prepare(&BootConfig::default()).map_err(io::Error::other)?;
    fs::create_dir_all(Path::new(PLACE).join("etc"))?;
    root::enter().map_err(io::Error::other)?;
    let mut warnings = Vec::new();
    tree::mount(&mut warnings).map_err(io::Error::other)?;
    set_limits(&mut warnings);
    prepared.install();
    network::configure(None);
    Ok(())
}

/// Mounts the disk, reads a little of it, and unmounts it.
fn read_disk(disk: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(disk, PLACE, "ext4", flags, Some(c"noload,no_prefetch_block_bitmaps"))?;
    for entry in fs::read_dir(PLACE)?.flatten() {
        if let Ok(mut file) = fs::File::open(entry.path()) {
            let _ = file.read(&mut [0; 4096]);
        }
    }
    Ok(rustix::mount::unmount(PLACE, UnmountFlags::empty())?)
}

/// Runs the agent's own program, which says that it runs nowhere but here, and hears it out.
fn run_program() -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match linux::fork()? {
        ForkSide::Child => {
            let _ = rustix::stdio::dup2_stdout(&writer).and_then(|()| rustix::stdio::dup2_stderr(&writer));
            linux::close_all_but_standard_and(writer.as_fd());
            let _ = rustix::process::setsid();
            let program = CString::from(c"/init");
            linux::execute(&program, &[program.clone(), c"rehearsal".into()], &[c"PATH=/bin".into()]);
            linux::exit_child(1);
        }
        ForkSide::Parent(child) => {
            drop(writer);
            let mut said = Vec::new();
            let heard = fs::File::from(reader).read_to_end(&mut said);
            await_end(child);
            heard.map(drop)
        }
    }
}

fn await_end(child: Pid) {
    let ended = || rustix::process::waitpid(Some(child), WaitOptions::empty());
    while matches!(ended(), Err(rustix::io::Errno::INTR)) {}
}

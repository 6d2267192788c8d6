//! The QEMU process of one box.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Result};

use super::jailed;
use super::program::{self, QemuCommand, QemuProcess};
use super::qemu::{self, Channels, Memory, QemuFiles};
use crate::shim::backend::{self, DeviceBackend};
use crate::shim::child::ChildSpawner;
use crate::shim::jail::BoxJail;
use crate::shim::launch::{GuestOrigin, LaunchSpec};

/// A started QEMU and the shim's ends of its channels, all non-blocking.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) process: QemuProcess,
    /// QMP, still in its greeting.
    pub(crate) qmp: UnixStream,
    /// The guest agent's port; what is written now is kept until the guest opens it.
    pub(crate) agent: UnixStream,
    /// The guest's serial console.
    pub(crate) console: UnixStream,
    /// The guest's memory, where it is to be kept as a template.
    pub(crate) memory: Option<File>,
    /// The overlay, until the driver takes it.
    pub(crate) overlay: Option<OverlayReader>,
    /// The number of QEMU's descriptor of its devices' state, which it waits to be told to read.
    pub(crate) state: Option<RawFd>,
}

/// The overlay that a QEMU was started with, open for reading alone.
#[derive(Debug)]
pub(crate) struct OverlayReader {
    pub(crate) file: File,
    /// The number of QEMU's set of descriptors with the one it writes to.
    pub(crate) set: RawFd,
}

/// Starts QEMU for `spec` from the leased kernel and initramfs `boot_files` with what `backends` add, from `template` if
/// there is one: the very file that is leased. `volumes` are the open disks of the named volumes.
pub(crate) fn start(
    spec: &LaunchSpec,
    boot_files: &[Leased; 2],
    template: Option<&Leased>,
    volumes: &[File],
    jail: Option<&BoxJail>,
    spawner: &ChildSpawner,
    backends: &mut [DeviceBackend],
) -> Result<Vm> {
    let pair = || UnixStream::pair().doing("making a channel for QEMU of", &spec.box_dir);
    let ((qmp, qmp_end), (agent, agent_end), (console, console_end)) = (pair()?, pair()?, pair()?);
    let channels =
        Channels { qmp: qmp_end.as_raw_fd(), agent: agent_end.as_raw_fd(), console: console_end.as_raw_fd() };
    let extra: Vec<_> = backends.iter().flat_map(|backend| backend.arguments.iter().cloned()).collect();
    let shared = backends.iter().any(|backend| backend.shared_memory);
    let given: Vec<OwnedFd> = backends.iter_mut().flat_map(|backend| backend.descriptors.drain(..)).collect();
    let disks = Disks::open(spec, volumes)?;
    let [kernel, initrd] = boot_files.each_ref().map(Leased::file);
    let files = disks.files(kernel.as_raw_fd(), initrd.as_raw_fd());
    let memory_file = memory_file(spec)?;
    let state_file = template.map(|template| state_file(template, spec.memory_bytes)).transpose()?;
    let memory = match (template, &memory_file) {
        _ if shared => Memory::Shared,
        (Some(template), _) => Memory::Template(template.file().as_raw_fd()),
        (None, Some(file)) => Memory::File(file.as_raw_fd()),
        (None, None) => Memory::Own,
    };
    let mut descriptors = vec![qmp_end.as_fd(), agent_end.as_fd(), console_end.as_fd()];
    descriptors.extend(given.iter().map(AsFd::as_fd));
    descriptors.extend(disks.all().chain(&state_file).map(AsFd::as_fd));
    let mut named = vec![kernel.as_fd(), initrd.as_fd()];
    named.extend(template.map(Leased::file).into_iter().chain(&memory_file).map(AsFd::as_fd));
    let command = QemuCommand {
        arguments: qemu::arguments(spec, channels, &files, &extra, memory),
        descriptors,
        named,
        overlay: &disks.overlay,
        longest_volume: disks.longest_volume(),
    };
    let mut begin_network = || backend::begin_network(backends, spec, jail, spawner);
    let process = match jail {
        Some(jail) => jailed::start(spec, jail, command, spawner, begin_network)?,
        None => {
            begin_network()?;
            program::start_unjailed(spec, command, spawner)?
        }
    };
    for stream in [&qmp, &agent, &console] {
        stream.set_nonblocking(true).doing("preparing a channel for QEMU of", &spec.box_dir)?;
    }
    let state = state_file.map(|file| file.as_raw_fd());
    let overlay = Some(OverlayReader { set: disks.overlay.as_raw_fd(), file: disks.reader });
    Ok(Vm { process, qmp, agent, console, memory: memory_file, overlay, state })
}

/// The files of a box's disk, opened for QEMU, which locks them: the shim closes its copies once QEMU runs.
struct Disks<'a> {
    overlay: File,
    /// The overlay once more, for the day on which it is a base.
    reader: File,
    bases: Vec<File>,
    backing: File,
    /// The very open files on which the locks of the volumes are.
    volumes: &'a [File],
    modules: Option<File>,
}

impl<'a> Disks<'a> {
    fn open(spec: &LaunchSpec, volumes: &'a [File]) -> Result<Self> {
        let read = |path: &std::path::PathBuf| File::open(path).doing("opening the disk", path);
        Ok(Self {
            overlay: File::options()
                .read(true)
                .write(true)
                .open(&spec.overlay)
                .doing("opening the disk", &spec.overlay)?,
            reader: read(&spec.overlay)?,
            bases: spec.bases.iter().map(read).collect::<Result<_>>()?,
            backing: read(&spec.backing)?,
            volumes,
            modules: spec.modules.as_ref().map(read).transpose()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &File> {
        let handed_over = self.volumes.iter().chain(&self.modules);
        [&self.overlay, &self.backing].into_iter().chain(&self.bases).chain(handed_over)
    }

    /// Bytes of the longest disk of a volume.
    fn longest_volume(&self) -> u64 {
        let lengths = self.volumes.iter().filter_map(|disk| disk.metadata().ok()).map(|found| found.len());
        lengths.max().unwrap_or(0)
    }

    fn files(&self, kernel: RawFd, initrd: RawFd) -> QemuFiles {
        QemuFiles {
            kernel,
            initrd,
            overlay: self.overlay.as_raw_fd(),
            bases: self.bases.iter().map(AsRawFd::as_raw_fd).collect(),
            backing: self.backing.as_raw_fd(),
            volumes: self.volumes.iter().map(AsRawFd::as_raw_fd).collect(),
            modules: self.modules.as_ref().map(AsRawFd::as_raw_fd),
        }
    }
}

/// The memory of a guest that is to be kept.
fn memory_file(spec: &LaunchSpec) -> Result<Option<File>> {
    let GuestOrigin::BootAndKeep(_) = &spec.origin else { return Ok(None) };
    let doing = "making the memory of a guest of";
    let memory = rustix::fs::memfd_create("boxlite-guest", rustix::fs::MemfdFlags::CLOEXEC)
        .doing(doing, &spec.box_dir)?;
    let memory = File::from(memory);
    memory.set_len(spec.memory_bytes).doing(doing, &spec.box_dir)?;
    Ok(Some(memory))
}

/// A template opened once more, standing behind its `memory` bytes of memory, where the devices' state begins.
fn state_file(template: &Leased, memory: u64) -> Result<File> {
    let doing = "opening the template";
    let mut state =
        File::open(format!("/proc/self/fd/{}", template.file().as_raw_fd())).doing(doing, template.path())?;
    state.seek(SeekFrom::Start(memory)).doing(doing, template.path())?;
    Ok(state)
}

/// How QEMU ended, in words.
pub(crate) fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("QEMU exited with status {code}"),
            (None, Some(signal)) => format!("QEMU was killed by signal {signal}"),
            (None, None) => "QEMU ended in an unknown way".into(),
        },
        Err(error) => format!("QEMU's end could not be observed: {error}"),
    }
}

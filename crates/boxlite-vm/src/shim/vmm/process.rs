//! The QEMU process of one box.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use boxlite_home::lease::Leased;
use boxlite_jail::Filling;
use boxlite_types::{Doing, Error, Result};
use serde_json::json;

use super::jailed;
use super::program::{self, QemuCommand, QemuProcess};
use super::qemu::{self, Channels, Memory, QemuFiles, RootFiles};
use super::qmp::{Qmp, QmpError};
use crate::shim::backend::{self, DeviceBackend};
use crate::shim::child::ChildSpawner;
use crate::shim::jail::{self, BoxJail};
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
    /// The overlay, once there is one and until the driver takes it.
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

/// When a QEMU gets the root disk of its box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootDisk {
    /// As it starts.
    AtStart,
    /// Later, by [`give_root_disk`]: its guest waits for a box. None of its files may have more bytes then.
    Later { file_size: u64 },
}

/// The files of a machine that are open before it starts.
pub(crate) struct OpenFiles<'a> {
    /// The leased kernel and initramfs.
    pub(crate) boot: &'a [Leased; 2],
    /// The template that the guest is restored from, if it is: the very file that is leased.
    pub(crate) template: Option<&'a Leased>,
    /// The disks of the named volumes.
    pub(crate) volumes: &'a [File],
}

/// Starts QEMU for `spec` from these files, with what `backends` add.
pub(crate) fn start(
    spec: &LaunchSpec,
    files: &OpenFiles<'_>,
    root_disk: RootDisk,
    jail: Option<&BoxJail>,
    spawner: &ChildSpawner,
    backends: &mut [DeviceBackend],
) -> Result<Vm> {
    let &OpenFiles { boot, template, volumes } = files;
    let pair = || UnixStream::pair().doing("making a channel for QEMU of", &spec.box_dir);
    let ((qmp, qmp_end), (agent, agent_end), (console, console_end)) = (pair()?, pair()?, pair()?);
    let channels =
        Channels { qmp: qmp_end.as_raw_fd(), agent: agent_end.as_raw_fd(), console: console_end.as_raw_fd() };
    let extra: Vec<_> = backends.iter().flat_map(|backend| backend.arguments.iter().cloned()).collect();
    let shared = backends.iter().any(|backend| backend.shared_memory);
    let given: Vec<OwnedFd> = backends.iter_mut().flat_map(|backend| backend.descriptors.drain(..)).collect();
    let disks = Disks::open(spec, volumes, root_disk)?;
    let [kernel, initrd] = boot.each_ref().map(Leased::file);
    let files = disks.files(kernel.as_raw_fd(), initrd.as_raw_fd());
    let memory_file = memory_file(spec)?;
    let state_file = template.map(|template| state_file(template, spec.memory_bytes)).transpose()?;
    let memory = match (template, &memory_file) {
        _ if shared => Memory::Shared,
        (Some(_), Some(copy)) => Memory::Copy(copy.as_raw_fd()),
        (Some(template), None) => Memory::Template(template.file().as_raw_fd()),
        (None, Some(file)) => Memory::File(file.as_raw_fd()),
        (None, None) => Memory::Own,
    };
    let mapped = template.filter(|_| memory_file.is_none()).map(Leased::file);
    let filling = template.zip(memory_file.as_ref()).map(|(template, copy)| Filling {
        from: template.file().as_raw_fd(),
        into: copy.as_raw_fd(),
        length: spec.memory_bytes,
    });
    let mut descriptors = vec![qmp_end.as_fd(), agent_end.as_fd(), console_end.as_fd()];
    descriptors.extend(given.iter().map(AsFd::as_fd));
    descriptors.extend(disks.all().chain(&state_file).map(AsFd::as_fd));
    let named = mapped.into_iter().chain(&memory_file).map(AsFd::as_fd).collect();
    let command = QemuCommand {
        arguments: qemu::arguments(spec, channels, &files, &extra, memory),
        descriptors,
        read: vec![kernel.as_fd(), initrd.as_fd()],
        named,
        template: mapped.map(AsRawFd::as_raw_fd),
        filling,
        file_size: match (root_disk, &disks.root) {
            (RootDisk::Later { file_size }, _) => file_size,
            (RootDisk::AtStart, root) => root
                .as_ref()
                .map_or(0, |root| jail::file_size(&root.overlay, spec.memory_bytes))
                .max(disks.longest_volume()),
        },
    };
    let mut begin_network = || backend::begin_network(backends, spec, jail, spawner);
    let process = if let Some(jail) = jail {
        jailed::start(spec, jail, command, spawner, begin_network)?
    } else {
        begin_network()?;
        program::start_unjailed(spec, command, spawner)?
    };
    for stream in [&qmp, &agent, &console] {
        stream.set_nonblocking(true).doing("preparing a channel for QEMU of", &spec.box_dir)?;
    }
    let state = state_file.map(|file| file.as_raw_fd());
    // A copy is of no use to others.
    let memory = memory_file.filter(|_| template.is_none());
    let overlay = disks.root.map(|root| OverlayReader { set: root.overlay.as_raw_fd(), file: root.reader });
    Ok(Vm { process, qmp, agent, console, memory, overlay, state })
}

/// Gives the QEMU behind `qmp`, whose guest waits for its box, the root disk of the box of `spec`.
///
/// The guest has no driver for it yet, and finds it as if it had been there from the start.
pub(crate) async fn give_root_disk(qmp: &Qmp, spec: &LaunchSpec) -> Result<OverlayReader> {
    let RootFilesOfHost { overlay, reader, bases, backing } = RootFilesOfHost::open(spec)?;
    let refused = |error: QmpError| {
        Error::unsupported("QEMU does not take the disk of a box for a guest that runs").because(error)
    };
    let add = async |file: &File| -> Result<RawFd> {
        let set = qmp.add_descriptor(file.as_fd(), None).await.map_err(refused)?;
        RawFd::try_from(set).map_err(|_| Error::bug("QEMU's set of descriptors has no usual number"))
    };
    let mut files = RootFiles { overlay: add(&overlay).await?, bases: Vec::new(), backing: None };
    for base in &bases {
        files.bases.push(add(base).await?);
    }
    if let Some(backing) = &backing {
        files.backing = Some(add(backing).await?);
    }
    for node in qemu::root_nodes(&files, !spec.discard) {
        qmp.execute("blockdev-add", qemu::options_as_json(&node)).await.map_err(refused)?;
    }
    let device = format!("/machine/peripheral/{}", qemu::ROOT_DEVICE);
    let change = json!({ "path": device, "property": "drive", "value": qemu::ROOT_NODE });
    qmp.execute("qom-set", change).await.map_err(refused)?;
    Ok(OverlayReader { set: files.overlay, file: reader })
}

/// The files of a box's root disk.
struct RootFilesOfHost {
    overlay: File,
    /// The overlay once more, for the day on which it is a base.
    reader: File,
    bases: Vec<File>,
    backing: Option<File>,
}

impl RootFilesOfHost {
    fn open(spec: &LaunchSpec) -> Result<Self> {
        Ok(Self {
            overlay: File::options()
                .read(true)
                .write(true)
                .open(&spec.overlay)
                .doing("opening the disk", &spec.overlay)?,
            reader: open_disk(&spec.overlay)?,
            bases: spec.bases.iter().map(|base| open_disk(base)).collect::<Result<_>>()?,
            backing: spec.backing.as_deref().map(open_disk).transpose()?,
        })
    }

    /// Those that QEMU gets.
    fn all(&self) -> impl Iterator<Item = &File> {
        [&self.overlay].into_iter().chain(&self.backing).chain(&self.bases)
    }
}

fn open_disk(path: &Path) -> Result<File> {
    File::open(path).doing("opening the disk", path)
}

/// The files of a box's disks, opened for QEMU, which locks them: the shim closes its copies once QEMU runs.
struct Disks<'a> {
    root: Option<RootFilesOfHost>,
    /// The very open files on which the locks of the volumes are.
    volumes: &'a [File],
    modules: Option<File>,
}

impl<'a> Disks<'a> {
    fn open(spec: &LaunchSpec, volumes: &'a [File], root_disk: RootDisk) -> Result<Self> {
        Ok(Self {
            root: match root_disk {
                RootDisk::AtStart => Some(RootFilesOfHost::open(spec)?),
                RootDisk::Later { .. } => None,
            },
            volumes,
            modules: spec.modules.as_deref().map(open_disk).transpose()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &File> {
        self.root.iter().flat_map(RootFilesOfHost::all).chain(self.volumes).chain(&self.modules)
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
            root: self.root.as_ref().map(|root| RootFiles {
                overlay: root.overlay.as_raw_fd(),
                bases: root.bases.iter().map(AsRawFd::as_raw_fd).collect(),
                backing: root.backing.as_ref().map(AsRawFd::as_raw_fd),
            }),
            volumes: self.volumes.iter().map(AsRawFd::as_raw_fd).collect(),
            modules: self.modules.as_ref().map(AsRawFd::as_raw_fd),
        }
    }
}

/// The memory of a guest that is to be kept, or whose shares will be plugged in.
fn memory_file(spec: &LaunchSpec) -> Result<Option<File>> {
    if !matches!(spec.origin, GuestOrigin::BootAndKeep(_)) && !spec.plugs_shares() {
        return Ok(None);
    }
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

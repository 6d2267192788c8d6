//! QEMU's command line, as a pure function of one box's hardware.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::fd::RawFd;
use std::path::PathBuf;

use boxlite_proto::{AGENT_PORT, MODULES_SLOT};
use serde_json::{Map, Value};

use crate::shim::accel::Accelerator;
use crate::shim::launch::LaunchSpec;
use crate::volume;

/// The descriptor numbers under which QEMU inherits its channels; it opens no socket by path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channels {
    /// QMP.
    pub(crate) qmp: RawFd,
    /// The agent's virtio-serial port.
    pub(crate) agent: RawFd,
    /// The serial console.
    pub(crate) console: RawFd,
}

impl Channels {
    /// For a command line that is not run.
    pub(crate) const NONE: Self = Self { qmp: 0, agent: 0, console: 0 };
}

/// The descriptor numbers of the host's files that QEMU works with; it is told no path of any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QemuFiles {
    /// The guest's kernel.
    pub(crate) kernel: RawFd,
    /// Its initramfs.
    pub(crate) initrd: RawFd,
    /// The root disk; a guest that waits for its box has none yet.
    pub(crate) root: Option<RootFiles>,
    /// The disks of named volumes, in the order of [`LaunchSpec::disks`].
    pub(crate) volumes: Vec<RawFd>,
    /// The image of the kernel's modules.
    pub(crate) modules: Option<RawFd>,
}

/// The numbers of QEMU's descriptors, or sets of them, for the files of the root disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootFiles {
    /// The overlay, open for reading and writing.
    pub(crate) overlay: RawFd,
    /// The bases between overlay and disk image, nearest first.
    pub(crate) bases: Vec<RawFd>,
    /// The disk image, unless the disk stands on none.
    pub(crate) backing: Option<RawFd>,
}

impl QemuFiles {
    /// For a command line that is not run, of a box without bases.
    pub(crate) const NONE: Self = Self {
        kernel: 0,
        initrd: 0,
        root: Some(RootFiles { overlay: 0, bases: Vec::new(), backing: Some(0) }),
        volumes: Vec::new(),
        modules: None,
    };

    fn disks(&self) -> impl Iterator<Item = RawFd> {
        let of_root =
            |root: &RootFiles| [root.overlay].into_iter().chain(root.backing).chain(root.bases.clone());
        let others = self.volumes.iter().chain(&self.modules);
        self.root.iter().flat_map(of_root).chain(others.copied())
    }
}

/// The name of the root disk's device.
pub(crate) const ROOT_DEVICE: &str = "vd0";

/// The root disk's topmost node.
pub(crate) const ROOT_NODE: &str = "d0";

/// The stand-in for the root disk of a guest that waits for its box, and has not looked at it.
pub(crate) const PLACEHOLDER_NODE: &str = "none";

/// The block nodes of the root disk, in the order in which they are made; `flushed` says whether what the guest flushes reaches
/// the host's disk.
pub(crate) fn root_nodes(root: &RootFiles, flushed: bool) -> Vec<String> {
    // A disk that goes with its box need not survive the host: what the guest flushes stays in the host's memory.
    let flushing = if flushed { "" } else { ",cache.no-flush=on" };
    let mut nodes = vec![file_node("f0", root.overlay, &format!(",discard=unmap{flushing}"))];
    // Below a disk that stands on nothing is nothing, whatever its own header names.
    let lowest = match root.backing {
        Some(backing) => {
            nodes.push(file_node("b0", backing, ",read-only=on"));
            "driver=raw,node-name=b1,read-only=on,file=b0"
        }
        None => "driver=null-co,node-name=b1,read-only=on,size=0,read-zeroes=on",
    };
    nodes.push(lowest.to_owned());
    let mut below = String::from("b1");
    for (depth, &base) in root.bases.iter().enumerate().rev() {
        nodes.push(file_node(&format!("g{depth}"), base, ",read-only=on"));
        nodes.push(format!("driver=qcow2,node-name=h{depth},read-only=on,file=g{depth},backing={below}"));
        below = format!("h{depth}");
    }
    let top = format!("driver=qcow2,node-name={ROOT_NODE},file=f0,backing={below}");
    nodes.push(format!("{top},discard=unmap,detect-zeroes=unmap{flushing}"));
    nodes
}

/// The options of a node in the form that QMP takes.
pub(crate) fn options_as_json(options: &str) -> Value {
    let mut made = Map::new();
    for (name, value) in options.split(',').filter_map(|option| option.split_once('=')) {
        let value = match value {
            "on" => Value::Bool(true),
            "off" => Value::Bool(false),
            text => text.parse::<u64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
        };
        match name.split_once('.') {
            None => drop(made.insert(name.to_owned(), value)),
            Some((group, name)) => {
                let group = made.entry(group).or_insert_with(|| Value::Object(Map::new()));
                group[name] = value;
            }
        }
    }
    Value::Object(made)
}

/// A node of the file in a set of descriptors.
fn file_node(node: &str, set: RawFd, options: &str) -> String {
    format!("driver=file,node-name={node},aio=threads,filename=/dev/fdset/{set}{options}")
}

/// The name by which a program opens the file of its own descriptor once more.
pub(crate) fn name_of(descriptor: RawFd) -> PathBuf {
    format!("/dev/fd/{descriptor}").into()
}

/// The backing of the guest's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// QEMU's own.
    Own,
    /// A memory file of QEMU's that vhost-user devices may map.
    Shared,
    /// All of the inherited memory file with this descriptor.
    File(RawFd),
    /// All of the inherited memory file with this descriptor, which has a template's contents; the state of the devices will be
    /// read from elsewhere.
    Copy(RawFd),
    /// The beginning of the inherited file with this descriptor, of which QEMU copies the pages that the guest writes to;
    /// the state of the devices will be read from elsewhere.
    Template(RawFd),
}

impl Memory {
    /// The memory backend `ram` of `kib` KiB, where it is not QEMU's default.
    fn backend(self, kib: u64) -> Option<OsString> {
        let file = |descriptor: RawFd, share: &str| {
            let path = name_of(descriptor);
            format!("memory-backend-file,id=ram,size={kib}k,share={share},mem-path={}", path.display()).into()
        };
        match self {
            Self::Own => None,
            Self::Shared => Some(format!("memory-backend-memfd,id=ram,size={kib}k,share=on").into()),
            Self::File(descriptor) | Self::Copy(descriptor) => Some(file(descriptor, "on")),
            Self::Template(descriptor) => Some(file(descriptor, "off")),
        }
    }
}

/// Everything after `argv[0]`; `extra` are the arguments of the box's network and volumes.
pub(crate) fn arguments(
    spec: &LaunchSpec,
    channels: Channels,
    files: &QemuFiles,
    extra: &[OsString],
    memory: Memory,
) -> Vec<OsString> {
    let mut line = CommandLine::default();
    line.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
    line.option("-display", "none");
    line.option("-name", format!("boxlite-{}", spec.box_id));
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.option("-m", format!("size={}k", spec.memory_bytes / 1024));
    line.option("-smp", spec.cpus.to_string());
    // QEMU's own bound of TCG's translations is a gigabyte, which a box of 128 MiB did fill.
    line.option("-accel", if spec.accel == Accelerator::Kvm { "kvm" } else { "tcg,tb-size=64" });
    line.option("-cpu", processor(spec));
    let backend = memory.backend(spec.memory_bytes / 1024);
    let named = if backend.is_some() { ",memory-backend=ram" } else { "" };
    let ports = share_ports(spec);
    let bus = if ports > 0 { ",pcie=on" } else { "" };
    // QEMU would offer the guest's memory to the host for merging with that of others (KSM), and a guest can tell by the time of a
    // write which of its pages others have as well.
    let machine = "microvm,acpi=on,rtc=on,isa-serial=on,dump-guest-core=off,mem-merge=off";
    line.option("-machine", format!("{machine}{bus}{named}"));
    if let Some(backend) = backend {
        line.option("-object", backend);
    }
    if let Memory::Template(_) | Memory::Copy(_) = memory {
        line.option("-incoming", "defer");
    }
    line.option("-bios", "qboot.rom");
    line.option("-kernel", name_of(files.kernel)).option("-initrd", name_of(files.initrd));
    line.option("-append", kernel_command_line(spec));

    // A set of descriptors has the number of its only one.
    for disk in files.disks() {
        line.option("-add-fd", format!("fd={disk},set={disk}"));
    }
    let drive = if let Some(root) = &files.root {
        for node in root_nodes(root, !spec.discard) {
            line.option("-blockdev", node);
        }
        ROOT_NODE
    } else {
        // It is as good as any that has no file.
        line.option("-blockdev", format!("driver=null-co,node-name={PLACEHOLDER_NODE},size=1073741824"));
        PLACEHOLDER_NODE
    };
    line.option(
        "-device",
        format!("virtio-blk-device,drive={drive},id={ROOT_DEVICE},werror=stop,rerror=report"),
    );
    for (index, (disk, &descriptor)) in spec.disks.iter().zip(&files.volumes).enumerate() {
        // Bytes that a guest flushes to its volume reach the host's disk, whatever becomes of its root disk.
        let access = if disk.mount.read_only { ",read-only=on" } else { ",discard=unmap" };
        let zeroes = if disk.mount.read_only { "" } else { ",detect-zeroes=unmap" };
        line.option("-blockdev", file_node(&format!("vf{index}"), descriptor, access));
        let node = format!("driver=raw,node-name=v{index},file=vf{index}{access}{zeroes}");
        line.option("-blockdev", node);
        let serial = volume::serial(index);
        let device = format!("virtio-blk-device,drive=v{index},id=vv{index},serial={serial}");
        line.option("-device", device + ",werror=stop,rerror=report");
    }
    if let Some(modules) = files.modules {
        line.option("-blockdev", file_node("m0", modules, ",read-only=on"));
        line.option("-blockdev", "driver=raw,node-name=m1,read-only=on,file=m0");
        line.option(
            "-device",
            format!("virtio-blk-device,drive=m1,id=modules,bus=virtio-mmio-bus.{MODULES_SLOT}"),
        );
    }

    // Each port, used or not, has two queues for the guest to set up; port 0 is for consoles alone.
    line.option("-device", "virtio-serial-device,max_ports=2");
    line.option("-chardev", format!("socket,id=agent,fd={}", channels.agent));
    line.option("-device", format!("virtserialport,chardev=agent,name={AGENT_PORT},nr=1"));

    // Memory that the guest frees returns to the host. A hole that QEMU punches for that into a template is feigned by the
    // jail; without one it would be real, and every box's.
    if returns_memory(spec) {
        line.option("-device", "virtio-balloon-device,free-page-reporting=on");
    }

    for port in 0..ports {
        // Behind a power switch, the guest would not see what is plugged in until it has found the switch.
        let place = port + 1;
        let slot = format!("chassis={place},slot={place},power_controller_present=off");
        line.option("-device", format!("pcie-root-port,id=port{port},{slot}"));
    }
    line.option("-chardev", format!("socket,id=console,fd={}", channels.console));
    line.option("-serial", "chardev:console");
    line.option("-chardev", format!("socket,id=qmp,fd={}", channels.qmp));
    line.option("-mon", "chardev=qmp,mode=control");
    line.0.extend(extra.iter().cloned());
    line.0
}

/// Shares that are plugged into one port: the functions of a PCI device.
pub(super) const SHARES_PER_PORT: usize = 8;

/// The number of ports for shares that will be plugged in.
fn share_ports(spec: &LaunchSpec) -> usize {
    if spec.plugs_shares() { spec.shares.volumes.len().div_ceil(SHARES_PER_PORT) } else { 0 }
}

/// The guest's model of processor: all that the host has, but its virtualisation only on demand, since a guest that enters
/// guests of its own has the host's kernel, or QEMU, emulate that for it.
fn processor(spec: &LaunchSpec) -> &'static str {
    match (spec.accel, spec.nested) {
        (Accelerator::Kvm, false) => "host,vmx=off,svm=off",
        (Accelerator::Kvm, true) => "host",
        (Accelerator::Tcg { .. }, false) => "max,vmx=off,svm=off",
        (Accelerator::Tcg { .. }, true) => "max",
    }
}

/// Whether the guest tells what it has freed, in blocks of 2 MiB, and QEMU drops it.
///
/// The guest's kernel reports only while it has 32 such blocks free, so a small guest rarely does. (With smaller blocks,
/// `page_reporting_order`, QEMU 7.2 was not seen to drop any.)
fn returns_memory(spec: &LaunchSpec) -> bool {
    spec.jail.is_some()
}

/// The guest kernel's command line.
///
/// `earlycon` has a panic reach the console that comes before the kernel knows its serial line; whatever is less than that
/// `quiet` keeps off it.
/// `tsc_early_khz` keeps stock kernels from hanging in their TSC calibration under TCG; KVM has its own clock. `tsc=reliable`
/// keeps them from giving that clock up for one that loses time, when a busy host lets it look unsteady for a moment.
pub(crate) fn kernel_command_line(spec: &LaunchSpec) -> String {
    let mut line = String::from(
        "panic=-1 quiet loglevel=1 earlycon=uart8250,io,0x3f8 console=ttyS0 cryptomgr.notests init_on_alloc=0",
    );
    if let Accelerator::Tcg { tsc_khz } = spec.accel {
        let _ = write!(line, " tsc_early_khz={tsc_khz} tsc=reliable");
    }
    for argument in &spec.kernel_arguments {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

#[derive(Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }
}

#[cfg(test)]
mod tests;

//! QEMU's command line, as a pure function of one box's hardware.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use boxlite_proto::AGENT_PORT;

use crate::shim::accel::Accelerator;
use crate::shim::launch::LaunchSpec;

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

/// What the guest's memory is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// QEMU's own.
    Own,
    /// A memory file of QEMU's that vhost-user devices may map.
    Shared,
    /// All of the inherited memory file with this descriptor.
    File(RawFd),
    /// The beginning of the inherited file with this descriptor, of which QEMU copies the pages that the guest writes to;
    /// the state of the devices will be read from elsewhere.
    Template(RawFd),
}

impl Memory {
    /// The memory backend `ram` of `kib` KiB, where it is not QEMU's default.
    fn backend(self, kib: u64) -> Option<OsString> {
        let file = |descriptor: RawFd, share: &str| {
            let path = format!("/proc/self/fd/{descriptor}");
            format!("memory-backend-file,id=ram,size={kib}k,share={share},mem-path={path}").into()
        };
        match self {
            Self::Own => None,
            Self::Shared => Some(format!("memory-backend-memfd,id=ram,size={kib}k,share=on").into()),
            Self::File(descriptor) => Some(file(descriptor, "on")),
            Self::Template(descriptor) => Some(file(descriptor, "off")),
        }
    }
}

/// Everything after `argv[0]`; `extra` are the arguments of the box's network and volumes.
pub(crate) fn arguments(
    spec: &LaunchSpec,
    channels: Channels,
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
    match spec.accel {
        Accelerator::Kvm => line.option("-accel", "kvm").option("-cpu", "host"),
        Accelerator::Tcg { .. } => line.option("-accel", "tcg").option("-cpu", "max"),
    };
    let backend = memory.backend(spec.memory_bytes / 1024);
    let named = if backend.is_some() { ",memory-backend=ram" } else { "" };
    line.option("-machine", format!("microvm,acpi=on,isa-serial=on,dump-guest-core=off{named}"));
    if let Some(backend) = backend {
        line.option("-object", backend);
    }
    if let Memory::Template(_) = memory {
        line.option("-incoming", "defer");
    }
    line.option("-bios", "qboot.rom");
    line.path("-kernel", &spec.kernel).path("-initrd", &spec.initrd);
    line.option("-append", kernel_command_line(spec));

    // A disk that goes with its box need not survive the host: what the guest flushes stays in the host's memory.
    let flushing: &[u8] = if spec.discard { b",cache.no-flush=on" } else { b"" };
    line.block(&[
        b"driver=file,node-name=f0,aio=threads,discard=unmap",
        flushing,
        b",filename=",
        &escaped(spec.overlay.as_os_str()),
    ]);
    line.block(&[
        b"driver=file,node-name=b0,read-only=on,aio=threads,filename=",
        &escaped(spec.backing.as_os_str()),
    ]);
    line.block(&[b"driver=raw,node-name=b1,read-only=on,file=b0"]);
    let mut below = String::from("b1");
    for (depth, base) in spec.bases.iter().enumerate().rev() {
        let file = format!("driver=file,node-name=g{depth},read-only=on,aio=threads,filename=");
        line.block(&[file.as_bytes(), &escaped(base.as_os_str())]);
        let node = format!("driver=qcow2,node-name=h{depth},read-only=on,file=g{depth},backing={below}");
        line.block(&[node.as_bytes()]);
        below = format!("h{depth}");
    }
    let top = format!("driver=qcow2,node-name=d0,file=f0,backing={below},discard=unmap,detect-zeroes=unmap");
    line.block(&[top.as_bytes(), flushing]);
    line.option("-device", "virtio-blk-device,drive=d0,id=vd0,werror=stop,rerror=report");

    // Each port, used or not, has two queues for the guest to set up; port 0 is for consoles alone.
    line.option("-device", "virtio-serial-device,max_ports=2");
    line.option("-chardev", format!("socket,id=agent,fd={}", channels.agent));
    line.option("-device", format!("virtserialport,chardev=agent,name={AGENT_PORT},nr=1"));

    line.option("-chardev", format!("socket,id=console,fd={}", channels.console));
    line.option("-serial", "chardev:console");
    line.option("-chardev", format!("socket,id=qmp,fd={}", channels.qmp));
    line.option("-mon", "chardev=qmp,mode=control");
    line.0.extend(extra.iter().cloned());
    line.0
}

/// The guest kernel's command line.
///
/// `tsc_early_khz` keeps stock kernels from hanging in their TSC calibration under TCG; KVM has its own clock. `tsc=reliable`
/// keeps them from giving that clock up for one that loses time, when a busy host lets it look unsteady for a moment.
pub(crate) fn kernel_command_line(spec: &LaunchSpec) -> String {
    let mut line = String::from("panic=-1 quiet loglevel=1 console=ttyS0 cryptomgr.notests init_on_alloc=0");
    if let Accelerator::Tcg { tsc_khz } = spec.accel {
        let _ = write!(line, " tsc_early_khz={tsc_khz} tsc=reliable");
    }
    for argument in &spec.kernel_arguments {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

/// `name` as a value inside one of QEMU's comma-separated options: commas are doubled.
pub(crate) fn escaped(name: &OsStr) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for &byte in name.as_bytes() {
        out.push(byte);
        if byte == b',' {
            out.push(b',');
        }
    }
    out
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

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.option(name, path.as_os_str())
    }

    fn block(&mut self, parts: &[&[u8]]) -> &mut Self {
        self.option("-blockdev", OsString::from_vec(parts.concat()))
    }
}

#[cfg(test)]
mod tests;

//! Control messages between a shim and its guest agent. See the crate's [second hop](crate#shim-to-guest).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::health::{HealthProbe, ProbeEvent};
use crate::op::{Op, OpEvent};

/// A message from the shim to the guest agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Mount the root and set the guest up; answered by `Ready` or `BootFailed`. Accepted once.
    Boot(Box<BootConfig>),
    /// One operation inside the booted guest; answered by [`OpEvent`]s.
    Op(Op),
    /// Set the clock, which stood still with the guest; only for an agent with the ability [`crate::CLOCK`]. Not answered.
    SetClock {
        /// The host's clock in nanoseconds since the epoch.
        unix_nanos: u64,
    },
    /// End every process (SIGTERM, then SIGKILL after the grace), flush, remount the root read-only and answer `Down`.
    Shutdown {
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
}

/// A message from the guest agent to the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// The first message: the agent runs and waits for `Boot`.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the agent.
        version: u32,
        /// Optional abilities by name, such as [`crate::UNTOUCHED`].
        features: Vec<String>,
    },
    /// The guest is up and takes operations.
    Ready {
        /// How long each step took.
        timings: BootTimings,
        /// Failures that leave the guest usable, one sentence each.
        warnings: Vec<String>,
        /// The abilities of the hello once more: whoever restores a guest from a template has not heard that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        features: Vec<String>,
    },
    /// The guest cannot come up; nothing more follows.
    BootFailed {
        /// One sentence for the user.
        reason: String,
        /// Whether another boot of the same guest may well succeed.
        #[serde(default)]
        may_retry: bool,
    },
    /// Progress or result of an operation.
    Event(OpEvent),
    /// A probe of the box's health has begun or ended; only where [`BootConfig::health`] asks for probes.
    Health(ProbeEvent),
    /// Every filesystem is flushed; the virtual machine may be ended.
    Down,
}

/// The settings that a guest needs to come up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootConfig {
    /// Host name, also entered in `/etc/hosts`.
    pub hostname: String,
    /// Name servers for `/etc/resolv.conf`; none leaves the image's file alone.
    pub dns_servers: Vec<String>,
    /// Search domains for `/etc/resolv.conf`.
    pub dns_search: Vec<String>,
    /// Static address of `eth0`; `None` leaves only the loopback interface.
    pub network: Option<NetConfig>,
    /// Host directories to mount.
    pub mounts: Vec<ShareMount>,
    /// Disks of named volumes to mount.
    pub disks: Vec<DiskMount>,
    /// Filesystems to mount that are kept in the guest's memory.
    pub tmpfs: Vec<TmpfsMount>,
    /// Absolute paths where the image wants volumes: directories that are made where they are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_paths: Vec<String>,
    /// Whether a disk with the kernel's modules is in [`crate::MODULES_SLOT`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modules: bool,
    /// Most bytes that `/dev/shm` may hold; `None` leaves the kernel's bound, half of the memory.
    pub shm_size: Option<u64>,
    /// Whether the root filesystem becomes read-only once everything is mounted.
    pub read_only_root: bool,
    /// Whether to grow the root filesystem to its device's length.
    pub grow_root: bool,
    /// Additional lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostEntry>,
    /// Limits of every process that the agent starts, in place of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Parameters of the kernel, set once the network is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<Sysctl>,
    /// How the agent finds out whether the box is healthy; an agent without the ability [`crate::HEALTH`] does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthProbe>,
    /// The host's clock in nanoseconds since the epoch; 0 leaves the guest's clock alone.
    pub clock_unix_nanos: u64,
    /// Random bytes that no other guest has, which reseed the kernel's generator; none leaves it alone.
    pub entropy: Vec<u8>,
}

/// A static IPv4 configuration of `eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// Address of the guest.
    pub address: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
    /// Default route, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Ethernet address of the card. A card restored from a template starts with the template's address.
    pub mac: [u8; 6],
    /// Further addresses of the card, one in each network that the box is a member of, and the bits of their network parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<(Ipv4Addr, u8)>,
}

/// One `/etc/hosts` line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Name to resolve.
    pub name: String,
    /// Address in text form.
    pub address: String,
}

/// A limit of each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The limited resource.
    pub kind: UlimitKind,
    /// Limit in force, in the kernel's unit; `None` for none.
    pub soft: Option<u64>,
    /// Most that a process without privileges may raise it to; `None` for no bound.
    pub hard: Option<u64>,
}

/// The resource that a [`Ulimit`] limits: the kernel's `RLIMIT_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of getrlimit(2)")]
pub enum UlimitKind {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl UlimitKind {
    /// Every kind with its name, as Docker's users write it.
    pub const NAMES: [(&'static str, Self); 16] = [
        ("as", Self::As),
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];
}

/// A parameter of the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Its path below `/proc/sys`, such as `net/core/somaxconn`.
    pub path: String,
    /// The value written to it.
    pub value: String,
}

/// One virtiofs mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMount {
    /// Tag of the virtiofs device.
    pub tag: String,
    /// Absolute path in the guest, created if missing. Empty for a single file, so that an agent that knows none refuses it.
    pub target: String,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Absolute path at which the one file of the filesystem, which is called [`SHARED_FILE`], is mounted instead of all of it.
    #[serde(default)]
    pub file: Option<String>,
}

/// One named volume: a disk with an ext4 filesystem, whose directory `data` is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMount {
    /// Serial number of the disk; the root disk has none.
    pub serial: String,
    /// The volume's name, for messages.
    pub name: String,
    /// Absolute path in the guest, created if missing. An empty volume that may be written gets what the image has there.
    pub target: String,
    /// Whether the guest may not write.
    pub read_only: bool,
}

impl ShareMount {
    /// The path in the guest at which something is mounted.
    pub fn path(&self) -> &str {
        self.file.as_deref().unwrap_or(&self.target)
    }
}

/// The name of the file in a virtiofs that serves a single one.
pub const SHARED_FILE: &str = "file";

/// One filesystem in the guest's memory, which begins empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Absolute path in the guest, created if missing.
    pub target: String,
    /// Most bytes that it may hold; `None` leaves the kernel's bound, half of the memory.
    pub size: Option<u64>,
    /// Permissions of its root.
    pub mode: u32,
    /// Owner of its root.
    pub uid: u32,
    /// Group of its root.
    pub gid: u32,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Whether programs in it may be executed.
    pub exec: bool,
    /// Whether set-user-id and set-group-id bits in it count.
    pub suid: bool,
    /// Whether device nodes in it work.
    pub dev: bool,
}

/// Duration of each step of coming up, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimings {
    /// From the kernel's start to the agent's.
    pub kernel_us: u64,
    /// Loading modules and opening the port.
    pub agent_us: u64,
    /// Waiting for `Boot`.
    pub waited_us: u64,
    /// Mounting the root.
    pub root_us: u64,
    /// Everything from then until `Ready`.
    pub setup_us: u64,
}

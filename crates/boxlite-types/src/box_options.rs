//! The options of a new box.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{HealthCheck, NetworkJoin, RestartPolicy};

/// Everything that creating a box needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoxOptions {
    /// The image, as Docker users write it, or `oci:DIR[:tag]`, `oci-archive:FILE`, `docker-archive:FILE`.
    pub image: String,
    /// Whether to ask the registry first.
    pub pull: PullPolicy,
    /// As in [`crate::PullOptions::insecure`].
    pub insecure: bool,
    /// As in [`crate::PullOptions::insecure_credentials`].
    pub insecure_credentials: bool,
    /// A unique name; made up when absent.
    pub name: Option<String>,
    /// The box's main process.
    pub main: MainProcess,
    /// Environment of the main process and of execs, `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Working directory instead of the image's.
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers, instead of the image's.
    pub user: Option<String>,
    /// The main process gets a terminal.
    pub tty: bool,
    /// The main process's standard input stays open for attaching.
    pub stdin: bool,
    /// Host name in the guest; the short id when absent.
    pub hostname: Option<String>,
    /// Virtual processors.
    pub cpus: u32,
    /// Most processor time, in hundredths of one processor; as much as `cpus` processors have when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<u32>,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Whether the guest may run virtual machines of its own, at the host's risk: its kernel then has the code of the
    /// host's for nested virtualisation within its reach.
    pub nested: bool,
    /// The guest's kernel instead of the settings' or boxlite's own: a kernel with all that a guest needs built in, or a
    /// directory with `vmlinuz` and its `modules/`. A path on the host that runs the box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Virtual size of the root disk in bytes; the settings' default when absent.
    pub disk_size: Option<u64>,
    /// Allocated bytes of its overlay at which the box is paused, less than `disk_size`; no bound of its own when absent.
    pub disk_quota: Option<u64>,
    /// Bytes per second that the box may read from and write to its disk together, those of volumes not counted; no bound of
    /// its own when absent.
    pub disk_io: Option<u64>,
    /// Volumes, `HOST:BOX[:OPTIONS]`: `ro` or `rw`, and `U`.
    pub volumes: Vec<String>,
    /// Filesystems in the guest's memory, `BOX[:OPTIONS]`: `size=`, `mode=`, `uid=`, `gid=`, and `ro`, `exec`, `suid`, `dev`
    /// or their opposites.
    pub tmpfs: Vec<String>,
    /// Most bytes that `/dev/shm` may hold; half of the guest's memory when absent.
    pub shm_size: Option<u64>,
    /// The root disk is read-only while the box runs; volumes and `tmpfs` are as they say.
    pub read_only: bool,
    /// Published ports, `[[IP:][HOST]:]BOX[/tcp|/udp]`; see [`crate::parse_ports`].
    pub ports: Vec<String>,
    /// Besides, each port that the image exposes is published at a free port of the host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub publish_all: bool,
    /// How the box reaches the network.
    pub network: NetworkMode,
    /// The networks that it joins, in each of which boxes reach each other by name; see [`NetworkJoin::check_all`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkJoin>,
    /// TCP ports of the host's loopback that the box reaches through its gateway, 10.0.2.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_host: Vec<u16>,
    /// Names that the box resolves by itself, `NAME:IP` or `NAME:host-gateway`; see [`crate::AddedHost`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_host: Vec<String>,
    /// Addresses of name servers in place of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Domains below which the box's resolver looks for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Limits of each process, `TYPE=SOFT[:HARD]`; see [`crate::parse_ulimits`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    /// Parameters of the guest's kernel, `NAME=VALUE`; see [`crate::parse_sysctls`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<String>,
    /// All that the box may reach, `NAME|*.NAME|ADDRESS[/PREFIX][:PORT]`; without any it reaches whatever boxes reach.
    /// See [`crate::AllowRule`].
    pub allow_net: Vec<String>,
    /// The box is removed when it stops.
    pub auto_remove: bool,
    /// When it is started again after it has ended.
    pub restart: RestartPolicy,
    /// Seconds after which it is stopped when nobody uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
    /// Seconds after which it is removed when it has stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// How the box's health is checked, over what the image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Whether the main process is an init system, run as process 1 of its own process namespace; where absent, its program decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_system: Option<bool>,
    /// Signal that asks the main process to stop; the image's or TERM when absent.
    pub stop_signal: Option<String>,
    /// Seconds between that signal and KILL.
    pub stop_timeout: u32,
    /// Bytes of disk that a start claims for the box; the settings' default when absent.
    pub claim: Option<u64>,
    /// The request to a server that asked for the box under a key, so that every server knows that it was carried out. Servers set
    /// it; what a client says of it is not believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_key: Option<CreationKey>,
}

/// The request under an `Idempotency-Key` by which a box was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationKey {
    /// Digest of caller, route and key, in hex. No two boxes have the same within [`CreationKey::TIMEOUT`].
    // The store looks for it in the record's text, as the first field.
    pub request: String,
    /// Digest of the request's body, in hex.
    pub body: String,
}

impl CreationKey {
    /// For how long after its creation a box answers for its request.
    pub const TIMEOUT: Duration = Duration::from_secs(24 * 3600);
}

impl Default for BoxOptions {
    fn default() -> Self {
        Self {
            image: String::new(),
            pull: PullPolicy::Missing,
            insecure: false,
            insecure_credentials: false,
            name: None,
            main: MainProcess::default(),
            env: Vec::new(),
            workdir: None,
            user: None,
            tty: false,
            stdin: false,
            hostname: None,
            cpus: 1,
            cpu_limit: None,
            memory: 256 << 20,
            nested: false,
            kernel: None,
            disk_size: None,
            disk_quota: None,
            disk_io: None,
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            shm_size: None,
            read_only: false,
            ports: Vec::new(),
            publish_all: false,
            network: NetworkMode::User,
            networks: Vec::new(),
            allow_host: Vec::new(),
            add_host: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            ulimits: Vec::new(),
            sysctls: Vec::new(),
            allow_net: Vec::new(),
            auto_remove: false,
            restart: RestartPolicy::No,
            idle_timeout: None,
            ttl: None,
            labels: BTreeMap::new(),
            health: None,
            init_system: None,
            stop_signal: None,
            stop_timeout: 10,
            claim: None,
            creation_key: None,
        }
    }
}

/// The main process of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MainProcess {
    /// The image's entrypoint and command, either of them overridden; the box stops when it exits.
    Image {
        /// Instead of the image's entrypoint (which also drops the image's command).
        entrypoint: Option<Vec<String>>,
        /// Instead of the image's command.
        command: Option<Vec<String>>,
    },
    /// None: the box runs until it is stopped, and serves execs.
    Idle,
}

impl Default for MainProcess {
    fn default() -> Self {
        Self::Image { entrypoint: None, command: None }
    }
}

/// When an image is fetched although the home may have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Only when the home does not have it.
    #[default]
    Missing,
    /// Always ask its source.
    Always,
    /// Never; `NotFound` when the home does not have it.
    Never,
}

/// How a box reaches the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// No network device at all.
    None,
    /// QEMU's user-mode stack: outbound, DNS and forwarded ports; nothing of the host's loopback.
    #[default]
    User,
}

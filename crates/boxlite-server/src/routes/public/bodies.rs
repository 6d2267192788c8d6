//! The public API's bodies for boxes, and their translation to and from the library's types.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use boxlite::{
    BoxInfo, BoxOptions, BoxState, Error, MainProcess, NetworkMode, PortForward, Result, parse_named,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A new box.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CreateBoxRequest {
    pub(super) name: Option<String>,
    image: Option<String>,
    rootfs_path: Option<String>,
    cpus: Option<u32>,
    memory_mib: Option<u64>,
    disk_size_gb: Option<u64>,
    working_dir: Option<String>,
    env: BTreeMap<String, String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    volumes: Vec<VolumeRequest>,
    network: Option<NetworkRequest>,
    secrets: Vec<serde_json::Value>,
    /// Accepted and ignored: boxes outlive their creator in any case.
    #[serde(rename = "detach")]
    _detach: bool,
    tty: bool,
    auto_remove: bool,
    auto_stop: Option<u64>,
    auto_delete: Option<u64>,
    auto_resume: Option<bool>,
    advanced: Option<AdvancedRequest>,
}

/// A named volume, made with the box if there is none of that name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeRequest {
    managed_volume: String,
    guest_path: String,
    #[serde(default)]
    read_only: bool,
}

impl VolumeRequest {
    /// Returns what `-v` takes.
    fn into_text(self) -> Result<String> {
        let access = if self.read_only { "ro" } else { "rw" };
        let text = format!("{}:{}:{access}", self.managed_volume, self.guest_path);
        match parse_named(&text)? {
            Some(mount) if mount.name == self.managed_volume => Ok(text),
            _ => Err(Error::invalid(format!("{:?} is not a name for a volume", self.managed_volume))),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NetworkRequest {
    outbound: Option<NetworkPolicyRequest>,
    /// Access to the box's tunnels, which do not exist here.
    inbound: Option<NetworkPolicyRequest>,
    mode: Option<NetworkAccess>,
    allow_net: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkPolicyRequest {
    mode: NetworkAccess,
    #[serde(default)]
    allow_net: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NetworkAccess {
    Enabled,
    Disabled,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AdvancedRequest {
    capabilities: Option<CapabilityRequest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CapabilityRequest {
    add: Vec<String>,
    drop: Vec<String>,
}

/// The public API's default image.
const DEFAULT_IMAGE: &str = "alpine:latest";

impl CreateBoxRequest {
    /// Returns the library's options for this box.
    ///
    /// # Errors
    /// `Unsupported` for everything that the public API has and the library lacks, so that nothing is dropped silently.
    pub(super) fn into_options(self) -> Result<BoxOptions> {
        self.refuse_unsupported()?;
        let defaults = BoxOptions::default();
        let explicit = self.entrypoint.is_some() || self.cmd.is_some();
        let main = if explicit {
            MainProcess::Image { entrypoint: self.entrypoint, command: self.cmd }
        } else {
            MainProcess::Idle
        };
        Ok(BoxOptions {
            image: self.image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            name: self.name,
            main,
            env: variables(self.env)?,
            workdir: self.working_dir,
            user: self.user,
            tty: self.tty && explicit,
            stdin: explicit,
            cpus: self.cpus.unwrap_or(defaults.cpus),
            memory: bytes("memory_mib", self.memory_mib, 1 << 20)?.unwrap_or(defaults.memory),
            disk_size: bytes("disk_size_gb", self.disk_size_gb, 1 << 30)?,
            volumes: self.volumes.into_iter().map(VolumeRequest::into_text).collect::<Result<_>>()?,
            network: self.network.as_ref().map_or(NetworkMode::User, NetworkRequest::mode),
            allow_net: self.network.map(NetworkRequest::into_destinations).unwrap_or_default(),
            auto_remove: self.auto_remove && self.auto_delete.is_none(),
            idle_timeout: self.auto_stop.filter(|&seconds| seconds > 0),
            ttl: self.auto_delete.filter(|&seconds| seconds > 0),
            ..defaults
        })
    }

    fn refuse_unsupported(&self) -> Result<()> {
        let network = self.network.as_ref();
        let capabilities = self.advanced.as_ref().and_then(|advanced| advanced.capabilities.as_ref());
        let asked = [
            (self.rootfs_path.is_some(), "rootfs_path; name an image"),
            (!self.secrets.is_empty(), "secrets"),
            (
                network.is_some_and(NetworkRequest::lists_sources),
                "lists of who may reach a box (inbound.allow_net)",
            ),
            (capabilities.is_some_and(|it| !it.add.is_empty() || !it.drop.is_empty()), "Linux capabilities"),
            (self.auto_resume == Some(false), "auto_resume=false; exec starts a box that does not run"),
        ];
        match asked.iter().find(|(asked, _)| *asked) {
            Some((_, what)) => Err(Error::unsupported(format!("this server does not support {what}"))),
            None => Ok(()),
        }
    }
}

impl NetworkRequest {
    fn mode(&self) -> NetworkMode {
        match self.outbound.as_ref().map(|policy| policy.mode).or(self.mode) {
            Some(NetworkAccess::Disabled) => NetworkMode::None,
            Some(NetworkAccess::Enabled) | None => NetworkMode::User,
        }
    }

    /// All that the box may reach; an empty list allows everything, and a box without a network has no use for one.
    fn into_destinations(self) -> Vec<String> {
        match self.mode() {
            NetworkMode::None => Vec::new(),
            NetworkMode::User => {
                self.outbound.into_iter().flat_map(|policy| policy.allow_net).chain(self.allow_net).collect()
            }
        }
    }

    fn lists_sources(&self) -> bool {
        self.inbound.as_ref().is_some_and(|policy| !policy.allow_net.is_empty())
    }
}

/// Writes each variable as `NAME=value`.
pub(super) fn variables(env: BTreeMap<String, String>) -> Result<Vec<String>> {
    let write = |(name, value): (String, String)| {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid(format!(
                "{name:?} is not a variable name, or its value contains a NUL byte"
            )));
        }
        Ok(format!("{name}={value}"))
    };
    env.into_iter().map(write).collect()
}

fn bytes(field: &str, value: Option<u64>, unit: u64) -> Result<Option<u64>> {
    let in_bytes = |value: u64| {
        value
            .checked_mul(unit)
            .ok_or_else(|| Error::invalid(format!("{field} is {value}, which is too large")))
    };
    value.map(in_bytes).transpose()
}

/// A box as the public API shows it.
#[derive(Debug, Serialize)]
pub(super) struct PublicBox {
    #[serde(rename = "box_id")]
    id: String,
    name: String,
    status: &'static str,
    created_at: Timestamp,
    updated_at: Timestamp,
    pid: Option<u32>,
    exit_code: Option<i32>,
    image: String,
    cpus: u32,
    memory_mib: u64,
    labels: BTreeMap<String, String>,
    auto_stop: u64,
    auto_delete: u64,
    auto_resume: bool,
    network: Option<PublicNetwork>,
}

/// A box's network as the public API shows it, which has no word for networks of several boxes.
#[derive(Debug, Serialize)]
struct PublicNetwork {
    outbound: PublicPolicy,
    inbound: PublicPolicy,
    published_ports: Vec<PublishedPort>,
}

#[derive(Debug, Serialize)]
struct PublicPolicy {
    mode: NetworkAccess,
    allow_net: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PublishedPort {
    host_ip: Ipv4Addr,
    host_port: u16,
    guest_port: u16,
    protocol: String,
}

impl PublicNetwork {
    /// Returns the network as `info` describes it; `None` for a box that joins networks, of which some lead nowhere outside.
    fn of(info: &BoxInfo) -> Option<Self> {
        if !info.options.networks.is_empty() {
            return None;
        }
        let mode = match info.options.network {
            NetworkMode::User => NetworkAccess::Enabled,
            NetworkMode::None => NetworkAccess::Disabled,
        };
        let published = |port: &PortForward| PublishedPort {
            host_ip: port.bind,
            host_port: port.host,
            guest_port: port.guest,
            protocol: port.protocol.to_string(),
        };
        Some(Self {
            outbound: PublicPolicy { mode, allow_net: info.options.allow_net.clone() },
            // Its tunnels, for which a box needs no network.
            inbound: PublicPolicy { mode: NetworkAccess::Enabled, allow_net: Vec::new() },
            published_ports: info.ports.iter().map(published).collect(),
        })
    }
}

impl From<BoxInfo> for PublicBox {
    fn from(info: BoxInfo) -> Self {
        let changes = [Some(info.created_at), info.started_at, info.finished_at];
        Self {
            status: status(info.state),
            created_at: info.created_at,
            updated_at: changes.into_iter().flatten().max().unwrap_or(info.created_at),
            pid: None,
            exit_code: info.exit_code,
            network: PublicNetwork::of(&info),
            cpus: info.options.cpus,
            memory_mib: info.options.memory >> 20,
            auto_stop: info.options.idle_timeout.unwrap_or(0),
            auto_delete: info.options.ttl.unwrap_or(0),
            auto_resume: true,
            id: info.id,
            name: info.name,
            image: info.image,
            labels: info.options.labels,
        }
    }
}

/// Returns the public API's word for a state.
fn status(state: BoxState) -> &'static str {
    match state {
        BoxState::Created => "configured",
        BoxState::Running => "running",
        BoxState::Paused => "paused",
        // Clients wait for it as they do after a stop.
        BoxState::Restarting | BoxState::Stopped => "stopped",
        BoxState::Failed => "failed",
    }
}

/// Returns the state behind the public API's word; `None` for one that boxes here never have.
pub(super) fn state(status: &str) -> Result<Option<BoxState>> {
    match status {
        "configured" => Ok(Some(BoxState::Created)),
        "running" => Ok(Some(BoxState::Running)),
        "stopped" => Ok(Some(BoxState::Stopped)),
        "failed" => Ok(Some(BoxState::Failed)),
        "paused" => Ok(Some(BoxState::Paused)),
        "stopping" | "unknown" => Ok(None),
        other => Err(Error::invalid(format!("{other:?} is not a status of a box"))),
    }
}

#[cfg(test)]
mod tests {
    use boxlite::ErrorKind;
    use serde_json::json;

    use super::*;

    fn options(body: serde_json::Value) -> Result<BoxOptions> {
        serde_json::from_value::<CreateBoxRequest>(body).unwrap().into_options()
    }

    #[test]
    fn a_box_without_a_command_idles_and_one_with_it_runs_it() {
        // The body that the published Python client sends.
        let idle = options(json!({"image": "x", "network": {"mode": "enabled"}, "detach": false})).unwrap();
        assert_eq!((idle.main, idle.network, idle.stdin), (MainProcess::Idle, NetworkMode::User, false));
        let body = json!({"image": "x", "cmd": ["a"], "env": {"K": "V=1"}, "memory_mib": 128, "disk_size_gb": 3,
            "network": {"outbound": {"mode": "disabled"}}, "tty": true});
        let given = options(body).unwrap();
        assert_eq!(given.main, MainProcess::Image { entrypoint: None, command: Some(vec!["a".into()]) });
        assert_eq!((given.memory, given.disk_size), (128 << 20, Some(3 << 30)));
        assert_eq!(
            (given.env, given.network, given.tty),
            (vec!["K=V=1".to_owned()], NetworkMode::None, true)
        );
        assert_eq!(options(json!({})).unwrap().image, DEFAULT_IMAGE);
    }

    // Mutation tried: without `outbound`.
    #[test]
    fn allowed_destinations_are_the_library_s() {
        let network = |network: serde_json::Value| options(json!({ "network": network })).unwrap();
        for body in [
            json!({"mode": "enabled", "allow_net": ["a.example:443", "10.0.0.0/8"]}),
            json!({"outbound": {"mode": "enabled", "allow_net": ["a.example:443", "10.0.0.0/8"]}}),
        ] {
            assert_eq!(network(body).allow_net, ["a.example:443", "10.0.0.0/8"]);
        }
        let off = network(json!({"mode": "disabled", "allow_net": ["a.example"]}));
        assert_eq!((off.network, off.allow_net), (NetworkMode::None, Vec::new()));
    }

    /// Mutation tried: `auto_remove` beside `auto_delete`, which the clients send together.
    #[test]
    fn an_end_by_itself_is_the_library_s() {
        let given = options(json!({"auto_stop": 60, "auto_delete": 5, "auto_remove": true})).unwrap();
        assert_eq!((given.idle_timeout, given.ttl, given.auto_remove), (Some(60), Some(5), false));
        let none = options(json!({"auto_stop": 0, "auto_delete": 0})).unwrap();
        assert_eq!((none.idle_timeout, none.ttl), (None, None));
        assert!(options(json!({"auto_remove": true})).unwrap().auto_remove);
    }

    #[test]
    fn named_volumes_are_the_library_s_and_no_path_is_one() {
        let volumes = |name: &str, path: &str| {
            options(json!({"volumes": [{"managed_volume": name, "guest_path": path, "read_only": true}]}))
        };
        assert_eq!(volumes("data", "/x").unwrap().volumes, ["data:/x:ro"]);
        for (name, path) in
            [("/etc", "/x"), ("./a", "/x"), ("a:/b", "/x"), ("", "/x"), ("data", "x"), ("data", "/x:/y")]
        {
            assert_eq!(volumes(name, path).unwrap_err().kind(), ErrorKind::InvalidInput, "{name} {path}");
        }
    }

    #[test]
    fn unsupported_fields_are_refused_and_not_dropped() {
        for body in [
            json!({"rootfs_path": "/x"}),
            json!({"secrets": [{"name": "a", "value": "b"}]}),
            json!({"network": {"inbound": {"mode": "enabled", "allow_net": ["x"]}}}),
            json!({"advanced": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
            json!({"auto_resume": false}),
        ] {
            assert_eq!(options(body.clone()).unwrap_err().kind(), ErrorKind::Unsupported, "{body}");
        }
        assert!(serde_json::from_value::<CreateBoxRequest>(json!({"security": "none"})).is_err());
        assert_eq!(options(json!({"env": {"A=B": ""}})).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(options(json!({"memory_mib": u64::MAX})).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

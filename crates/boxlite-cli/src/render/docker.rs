//! What templates see under the names that Docker gives it, spelled as Docker spells them.
//!
//! Each function is one command's document, as far as boxlite has what is in it: a name that would stand for nothing is left
//! out, so that a template which asks for it is refused and does not read a made-up value.

use boxlite::settings::Bytes;
use boxlite::{
    BoxInfo, BoxState, HistoryEntry, HomeEvent, HostInfo, Image, MainProcess, NetworkInfo, NetworkMode,
    VolumeInfo,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::lists::{command, familiar, ports, status};
use super::{BoxFigures, ago};

/// A box as `docker ps` has it.
pub(crate) fn listed_box(info: &BoxInfo, now: Timestamp) -> Value {
    let networks: Vec<&str> = info.memberships.iter().map(|membership| membership.network.as_str()).collect();
    let mounts: Vec<String> = mounts(info).iter().map(|mount| mount.source.clone()).collect();
    json!({
        "Names": info.name,
        "Command": format!("\"{}\"", command(&info.options.main, true)),
        "RunningFor": ago(info.created_at, now),
        "Status": status(info, false, now),
        "Ports": ports(info),
        "Size": info.disk_allocated.map(|bytes| Bytes(bytes).to_string()),
        "Labels": labels(&info.options.labels),
        "Label": info.options.labels,
        "Networks": networks.join(","),
        "Mounts": mounts.join(","),
    })
}

/// A box as `docker inspect` has it.
pub(crate) fn inspected_box(info: &BoxInfo) -> Value {
    let options = &info.options;
    let (entrypoint, cmd) = match &options.main {
        MainProcess::Idle => (None, None),
        MainProcess::Image { entrypoint, command } => (entrypoint.clone(), command.clone()),
    };
    let address = |membership: &boxlite::Membership| json!({"IPAddress": membership.address});
    let networks: Map<String, Value> =
        info.memberships.iter().map(|membership| (membership.network.clone(), address(membership))).collect();
    let mut published = Map::new();
    for port in &info.ports {
        let one = json!({"HostIp": port.bind, "HostPort": port.host.to_string()});
        let all = published.entry(format!("{}/{}", port.guest, port.protocol)).or_insert_with(|| json!([]));
        if let Value::Array(all) = all {
            all.push(one);
        }
    }
    let restart = options.restart.to_string();
    let (policy, retries) = restart.split_once(':').unwrap_or((&restart, "0"));
    let thousandths =
        options.cpu_limit.map_or(u64::from(options.cpus) * 1000, |percent| u64::from(percent) * 10);
    json!({
        "Id": info.id,
        "Created": info.created_at,
        "State": {
            "Status": docker_state(info.state),
            "Running": info.state.is_up(),
            "Paused": info.state == BoxState::Paused,
            "Restarting": info.state == BoxState::Restarting,
            "Dead": info.state == BoxState::Failed,
            "ExitCode": info.exit_code.unwrap_or(0),
            "Error": info.reason.as_deref().filter(|_| info.state == BoxState::Failed).unwrap_or_default(),
            "StartedAt": info.started_at,
            "FinishedAt": info.finished_at,
            "Health": info.health.as_ref().map(|health| json!({
                "Status": health.status,
                "FailingStreak": health.failing_streak,
                "Log": health.log.iter().map(|probe| json!({
                    "Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output,
                })).collect::<Vec<_>>(),
            })),
        },
        "Config": {
            "Image": info.image,
            "Hostname": options.hostname.as_deref().unwrap_or(info.short_id()),
            "Env": options.env,
            "Entrypoint": entrypoint,
            "Cmd": cmd,
            "Labels": options.labels,
            "User": options.user.as_deref().unwrap_or_default(),
            "WorkingDir": options.workdir.as_deref().unwrap_or_default(),
            "Tty": options.tty,
            "OpenStdin": options.stdin,
            "StopSignal": options.stop_signal,
            "StopTimeout": options.stop_timeout,
        },
        "HostConfig": {
            "Memory": options.memory,
            "NanoCpus": thousandths * 1_000_000,
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries.parse::<u32>().unwrap_or(0)},
            "AutoRemove": options.auto_remove,
            "ReadonlyRootfs": options.read_only,
            "PublishAllPorts": options.publish_all,
            "ExtraHosts": options.add_host,
            "Dns": options.dns,
            "ShmSize": options.shm_size,
            "Binds": options.volumes,
            "NetworkMode": match (options.network, info.memberships.first()) {
                (_, Some(membership)) => membership.network.as_str(),
                (NetworkMode::None, None) => "none",
                (NetworkMode::User, None) => "user",
            },
        },
        "NetworkSettings": {
            "IPAddress": info.memberships.first().map(|membership| membership.address.to_string()).unwrap_or_default(),
            "Networks": networks,
            "Ports": published,
        },
        "Mounts": mounts(info).iter().map(BoxMount::document).collect::<Vec<_>>(),
    })
}

/// Docker's word for a state.
fn docker_state(state: BoxState) -> &'static str {
    match state {
        BoxState::Stopped => "exited",
        BoxState::Failed => "dead",
        other => other.name(),
    }
}

/// A folder or a volume of a box.
struct BoxMount {
    source: String,
    target: String,
    is_volume: bool,
    is_writable: bool,
}

impl BoxMount {
    fn document(&self) -> Value {
        let kind = if self.is_volume { "volume" } else { "bind" };
        let mode = if self.is_writable { "" } else { "ro" };
        json!({
            "Type": kind,
            "Name": if self.is_volume { self.source.as_str() } else { "" },
            "Source": self.source,
            "Destination": self.target,
            "Mode": mode,
            "RW": self.is_writable,
        })
    }
}

/// Reads what the box mounts, in the form that the options have kept it in.
fn mounts(info: &BoxInfo) -> Vec<BoxMount> {
    let mount = |text: &String| {
        let mut parts = text.splitn(3, ':');
        let (source, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let is_writable = parts.next().is_none_or(|options| options.split(',').all(|option| option != "ro"));
        Some(BoxMount { is_volume: !source.starts_with('/'), source, target, is_writable })
    };
    info.options.volumes.iter().filter_map(mount).collect()
}

/// The names of an image, each with what `docker images` has of it.
pub(crate) fn listed_images(image: &Image, now: Timestamp) -> Vec<Value> {
    let mut names: Vec<String> = image.references.iter().map(|name| familiar(name)).collect();
    if names.is_empty() {
        names.push("<none>:<none>".to_owned());
    }
    let listed = |name: &String| {
        let (repository, tag) = match name.rsplit_once([':', '@']) {
            Some((repository, tag)) if !tag.contains('/') && !name.contains('@') => (repository, tag),
            _ => (name.split('@').next().unwrap_or(name), "<none>"),
        };
        let created = image.config.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": image.short_id(),
            "CreatedAt": created,
            "CreatedSince": created.map(|created| ago(created, now)),
            "Size": Bytes(image.stored_bytes()).to_string(),
        })
    };
    names.iter().map(listed).collect()
}

/// An image as `docker image inspect` has it.
pub(crate) fn inspected_image(image: &Image) -> Value {
    let config = &image.config;
    let exposed: Map<String, Value> =
        config.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    let volumes: Map<String, Value> = config.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
    let tags: Vec<String> = image.references.iter().map(|name| familiar(name)).collect();
    json!({
        "Id": image.digest,
        "RepoTags": tags,
        "Created": config.created,
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.stored_bytes(),
        "Config": {
            "Env": config.env,
            "Cmd": config.cmd,
            "Entrypoint": config.entrypoint,
            "WorkingDir": config.working_dir,
            "User": config.user,
            "Labels": config.labels,
            "ExposedPorts": exposed,
            "Volumes": volumes,
            "StopSignal": config.stop_signal,
        },
        "RootFS": {"Type": "layers", "Layers": image.diff_ids()},
    })
}

/// A step as `docker history` has it.
pub(crate) fn listed_step(step: &HistoryEntry, now: Timestamp) -> Value {
    let created = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    json!({
        "ID": step.digest.map_or_else(|| "<missing>".to_owned(), |digest| digest.hex()[..12].to_owned()),
        "CreatedSince": created.map(|created| ago(created, now)),
        "CreatedAt": step.created,
    })
}

/// Figures as `docker stats` has them.
pub(crate) fn listed_figures(figures: &BoxFigures) -> Value {
    let [id, name, cpu, memory, share, _, network, processes] = figures.cells();
    json!({
        "Container": id, "ID": id, "Name": name, "CPUPerc": cpu, "MemUsage": memory, "MemPerc": share, "NetIO": network,
        "PIDs": processes,
    })
}

/// A named volume as `docker volume` has it.
pub(crate) fn volume(info: &VolumeInfo) -> Value {
    json!({
        "Driver": "local", "Scope": "local", "Mountpoint": info.path, "CreatedAt": info.created_at,
        "Labels": labels(&info.labels), "Label": info.labels, "Links": info.boxes.len().to_string(),
    })
}

/// A network as `docker network ls` and `docker network inspect` have it.
pub(crate) fn network(info: &NetworkInfo) -> Value {
    let containers: Map<String, Value> = info
        .boxes
        .iter()
        .map(|member| {
            let address =
                format!("{}/{}", member.address, info.subnet.to_string().rsplit('/').next().unwrap_or("24"));
            (member.id.clone(), json!({"Name": member.name, "IPv4Address": address}))
        })
        .collect();
    json!({
        "ID": info.id, "Id": info.id, "Driver": "bridge", "Scope": "local", "Created": info.created_at,
        "Labels": labels(&info.labels), "Label": info.labels,
        "IPAM": {"Config": [{"Subnet": info.subnet}]}, "Containers": containers,
    })
}

/// An event as `docker events` has it.
pub(crate) fn event(event: &HomeEvent) -> Value {
    let mut attributes: Map<String, Value> =
        event.details.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    attributes.insert("name".to_owned(), event.name.as_deref().unwrap_or_default().into());
    if let Some(code) = event.details.get("exit_code") {
        attributes.insert("exitCode".to_owned(), code.as_str().into());
    }
    let subject = json!(event.subject);
    json!({
        "Type": if subject == "box" { "container".into() } else { subject },
        "Status": event.action,
        "ID": event.id,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "Time": event.at.as_second(),
        "TimeNano": i64::try_from(event.at.as_nanosecond()).ok(),
        "From": "",
    })
}

/// The host as `docker info` has it.
pub(crate) fn host(info: &HostInfo) -> Value {
    json!({
        "ServerVersion": info.version,
        "Containers": info.boxes,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.boxes.saturating_sub(info.running),
        "DockerRootDir": info.home,
        "MemTotal": info.memory.as_ref().map(|memory| memory.host.bytes),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": std::thread::available_parallelism().map(usize::from).ok(),
    })
}

/// The version as `docker version` has it.
pub(crate) fn version(version: &str) -> Value {
    let part = json!({"Version": version, "Os": "linux", "Arch": std::env::consts::ARCH});
    json!({"Client": part, "Server": part})
}

/// Writes labels as Docker lists them.
fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

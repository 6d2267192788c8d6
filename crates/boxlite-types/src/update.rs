//! Changes of a box after its creation, and of a clone beside its origin.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{BoxOptions, CreationKey, NetworkJoin, NetworkMode, RestartPolicy};

/// The new values of what can be changed of a box after its creation; what is absent stays.
///
/// Name, disk quota, time to live and, where a keeper is there already, the restart policy change at any time; everything
/// else while the box does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateOptions {
    /// Its unique name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As in [`BoxOptions::disk_quota`]; `Some(None)` takes the quota away.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub disk_quota: Option<Option<u64>>,
    /// As in [`BoxOptions::disk_io`]; `Some(None)` takes the bound away.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub disk_io: Option<Option<u64>>,
    /// As in [`BoxOptions::ttl`]; `Some(None)` keeps the box.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Option<u64>>,
    /// As in [`BoxOptions::idle_timeout`]; `Some(None)` lets the box run.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Option<u64>>,
    /// As in [`BoxOptions::restart`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// As in [`BoxOptions::memory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// As in [`BoxOptions::cpus`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// As in [`BoxOptions::cpu_limit`]; `Some(None)` takes the limit away.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<Option<u32>>,
    /// More environment, in place of what has the same names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// All published ports, as in [`BoxOptions::ports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// All that the box may reach, as in [`BoxOptions::allow_net`]; an empty list lets it reach what boxes reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_net: Option<Vec<String>>,
    /// All ports of the host's loopback that the box reaches, as in [`BoxOptions::allow_host`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_host: Option<Vec<u16>>,
    /// As in [`BoxOptions::network`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// All networks that the box is in, as in [`BoxOptions::networks`]. It keeps its address in those that it was in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkJoin>>,
    /// A network that the box joins besides, and is not in yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<NetworkJoin>,
    /// The name of a network that the box is in and leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave: Option<String>,
}

/// How to clone a box; what is absent is the origin's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloneOptions {
    /// The clone's unique name; made up when absent.
    pub name: Option<String>,
    /// The snapshot of the origin whose files the clone gets; those that it has now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// As in [`BoxOptions::memory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// More environment, in place of what has the same names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// All published ports, as in [`BoxOptions::ports`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// All volumes, as in [`BoxOptions::volumes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<String>>,
    /// As in [`BoxOptions::creation_key`], in no request.
    #[serde(skip)]
    pub creation_key: Option<CreationKey>,
}

impl UpdateOptions {
    /// Whether something is changed that a running box is not told of.
    pub fn needs_rest(&self) -> bool {
        let Self {
            name: _,
            disk_quota: _,
            ttl: _,
            restart: _,
            disk_io,
            idle_timeout,
            memory,
            cpus,
            cpu_limit,
            env,
            ports,
            allow_net,
            allow_host,
            network,
            networks,
            join,
            leave,
        } = self;
        disk_io.is_some()
            || idle_timeout.is_some()
            || memory.is_some()
            || cpus.is_some()
            || cpu_limit.is_some()
            || !env.is_empty()
            || ports.is_some()
            || allow_net.is_some()
            || allow_host.is_some()
            || network.is_some()
            || networks.is_some()
            || join.is_some()
            || leave.is_some()
    }

    /// Returns `options` with these changes.
    #[must_use]
    pub fn applied_to(&self, mut options: BoxOptions) -> BoxOptions {
        let Self {
            name,
            disk_quota,
            disk_io,
            ttl,
            idle_timeout,
            restart,
            memory,
            cpus,
            cpu_limit,
            env,
            ports,
            allow_net,
            allow_host,
            network,
            networks,
            join,
            leave,
        } = self.clone();
        options.name = name.or(options.name);
        options.disk_quota = disk_quota.unwrap_or(options.disk_quota);
        options.disk_io = disk_io.unwrap_or(options.disk_io);
        options.ttl = ttl.unwrap_or(options.ttl);
        options.idle_timeout = idle_timeout.unwrap_or(options.idle_timeout);
        options.restart = restart.unwrap_or(options.restart);
        options.memory = memory.unwrap_or(options.memory);
        options.cpus = cpus.unwrap_or(options.cpus);
        options.cpu_limit = cpu_limit.unwrap_or(options.cpu_limit);
        options.ports = ports.unwrap_or(options.ports);
        options.allow_net = allow_net.unwrap_or(options.allow_net);
        options.allow_host = allow_host.unwrap_or(options.allow_host);
        options.network = network.unwrap_or(options.network);
        options.networks = networks.unwrap_or(options.networks);
        if let Some(join) = join {
            options.networks.retain(|other| other.name != join.name);
            options.networks.push(join);
        }
        if let Some(name) = leave {
            options.networks.retain(|other| other.name != name);
        }
        set_variables(&mut options.env, env);
        options
    }
}

impl CloneOptions {
    /// Returns the origin's `options` with these changes.
    #[must_use]
    pub fn applied_to(&self, mut options: BoxOptions) -> BoxOptions {
        let Self { name, snapshot: _, memory, env, ports, volumes, creation_key } = self.clone();
        options.name = name;
        options.creation_key = creation_key;
        options.memory = memory.unwrap_or(options.memory);
        options.ports = ports.unwrap_or(options.ports);
        options.volumes = volumes.unwrap_or(options.volumes);
        // The origin has the addresses that it asked for.
        for join in &mut options.networks {
            join.address = None;
        }
        set_variables(&mut options.env, env);
        options
    }
}

/// Adds entries `NAME=value` in place of those with the same names.
fn set_variables(env: &mut Vec<String>, more: Vec<String>) {
    let name = |entry: &str| entry.split_once('=').map_or(entry.to_owned(), |(name, _)| name.to_owned());
    for entry in more {
        env.retain(|old| name(old) != name(&entry));
        env.push(entry);
    }
}

/// Tells a value that is absent from one that is `null`.
// That is what the two levels are for.
#[allow(clippy::option_option)]
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_says_what_it_changes() {
        let read = |text: &str| serde_json::from_str::<UpdateOptions>(text).ok();
        assert_eq!(read("{}"), Some(UpdateOptions::default()));
        let quota =
            |disk_quota| Some(UpdateOptions { disk_quota: Some(disk_quota), ..UpdateOptions::default() });
        assert_eq!(read(r#"{"disk_quota":null}"#), quota(None));
        assert_eq!(read(r#"{"disk_quota":5}"#), quota(Some(5)));
        for unclear in [r#"{"disk_quota":5,"colour":5}"#, r#"{"disk_quota":-1}"#, r#"{"restart":"maybe"}"#] {
            assert_eq!(read(unclear), None, "{unclear}");
        }
        let all = UpdateOptions {
            ttl: Some(None),
            memory: Some(1),
            ports: Some(Vec::new()),
            ..UpdateOptions::default()
        };
        assert_eq!(read(&serde_json::to_string(&all).unwrap()), Some(all));
    }

    /// Mutation tried: entries that are only added leave the old value first, which programs that read the first one keep.
    #[test]
    fn what_is_absent_stays() {
        let options = BoxOptions {
            memory: 7,
            ttl: Some(1),
            ports: vec!["80".into()],
            env: vec!["A=1".into(), "B=2".into()],
            ..BoxOptions::default()
        };
        assert_eq!(UpdateOptions::default().applied_to(options.clone()), options);
        let changes =
            UpdateOptions { ttl: Some(None), env: vec!["A=3=4".into()], ..UpdateOptions::default() };
        let changed = changes.applied_to(options.clone());
        assert_eq!((changed.ttl, changed.memory), (None, 7));
        assert_eq!(changed.env, ["B=2", "A=3=4"]);
        let clone = CloneOptions { ports: Some(Vec::new()), ..CloneOptions::default() }.applied_to(options);
        assert_eq!((clone.ports, clone.memory), (Vec::new(), 7));
    }

    #[test]
    fn a_box_joins_and_leaves_networks_one_by_one_or_all_at_once() {
        let back = NetworkJoin { address: Some([10, 89, 0, 7].into()), ..NetworkJoin::named("back") };
        let options = BoxOptions { networks: vec![back.clone()], ..BoxOptions::default() };
        let networks = |changes: &UpdateOptions| changes.applied_to(options.clone()).networks;
        let join = UpdateOptions { join: Some(NetworkJoin::named("front")), ..UpdateOptions::default() };
        assert_eq!(networks(&join), [back.clone(), NetworkJoin::named("front")]);
        let leave = UpdateOptions { leave: Some("back".into()), ..UpdateOptions::default() };
        assert_eq!(networks(&leave), []);
        let all = UpdateOptions {
            networks: Some(vec![NetworkJoin::named("front")]),
            network: Some(NetworkMode::User),
            ..UpdateOptions::default()
        };
        assert_eq!(networks(&all), [NetworkJoin::named("front")]);
        for changes in [join, leave, all] {
            assert!(changes.needs_rest(), "{changes:?}");
            let once = changes.applied_to(options.clone());
            assert_eq!(changes.applied_to(once.clone()), once, "a server's answer shows whether it heard");
        }
        let clone = CloneOptions::default().applied_to(options);
        assert_eq!(clone.networks, [NetworkJoin::named("back")], "under an address of its own");
    }

    #[test]
    fn only_what_the_guest_does_not_see_changes_while_it_runs() {
        let running = UpdateOptions {
            name: Some("a".into()),
            disk_quota: Some(None),
            ttl: Some(None),
            restart: Some(RestartPolicy::No),
            ..UpdateOptions::default()
        };
        assert!(!running.needs_rest());
        assert!(UpdateOptions { memory: Some(1), ..running.clone() }.needs_rest());
        assert!(UpdateOptions { env: vec!["A=".into()], ..running }.needs_rest());
    }
}

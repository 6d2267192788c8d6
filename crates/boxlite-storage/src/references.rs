//! Which boxes mount which volumes and are members of which networks.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind as IoErrorKind;
use std::net::Ipv4Addr;

use boxlite_home::{Home, durable, is_id};
use boxlite_types::{BoxDescription, BoxRecord, Doing, Membership, Result};

use crate::store::{IntentKind, ListedBox, Store};

/// A box that mounts a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUser {
    /// The box's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether the database knows it: one that it does not know may be given its record back.
    pub recorded: bool,
}

/// A box that is a member of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkUser {
    /// The box's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address in the network.
    pub address: Ipv4Addr,
    /// Its other names in the network.
    pub aliases: Vec<String>,
}

/// The boxes of a home, as far as they mount volumes or are members of networks.
#[derive(Debug, Clone, Default)]
pub struct References {
    by_volume: BTreeMap<String, Vec<VolumeUser>>,
    by_network: BTreeMap<String, Vec<NetworkUser>>,
    /// Boxes of which it is unknown what they mount and join, and why.
    pub doubts: Vec<String>,
}

impl References {
    /// Looks at the records, and at the descriptions of boxes without one.
    ///
    /// # Errors
    /// `Io` or `Corrupt` when the records or the directories cannot be listed.
    pub fn of(home: &Home, store: &Store) -> Result<Self> {
        let mut references = Self::default();
        // The directories come first: a box that is recorded meanwhile is found among the records.
        let directories = box_directories(home)?;
        let mut recorded = HashSet::new();
        for listed in store.boxes()? {
            match listed {
                ListedBox::Whole(record) => {
                    references.add(&record, true);
                    recorded.insert(record.id);
                }
                ListedBox::Damaged(damaged) => {
                    references.doubts.push(format!(
                        "the record of box {} ({}) cannot be read, and it may mount any volume and be in any network: {}",
                        damaged.name, damaged.id, damaged.why
                    ));
                    recorded.insert(damaged.id);
                }
            }
        }
        for id in directories.into_iter().filter(|id| !recorded.contains(id)) {
            // One that is being removed, or was never finished, comes back under no name.
            if !store.has_intent(IntentKind::Box, &id)? {
                references.add_lost(home, &id);
            }
        }
        Ok(references)
    }

    /// The boxes that mount the volume `name`.
    pub fn to(&self, name: &str) -> &[VolumeUser] {
        self.by_volume.get(name).map_or(&[], Vec::as_slice)
    }

    /// The boxes that are members of the network `name`.
    pub fn to_network(&self, name: &str) -> &[NetworkUser] {
        self.by_network.get(name).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, record: &BoxRecord, recorded: bool) {
        for mount in &record.named_volumes {
            let user = VolumeUser { id: record.id.clone(), name: record.name.clone(), recorded };
            self.by_volume.entry(mount.name.clone()).or_default().push(user);
        }
        for Membership { network, address } in &record.memberships {
            let join = record.options.networks.iter().find(|join| join.name == *network);
            self.by_network.entry(network.clone()).or_default().push(NetworkUser {
                id: record.id.clone(),
                name: record.name.clone(),
                address: *address,
                aliases: join.map(|join| join.aliases.clone()).unwrap_or_default(),
            });
        }
    }

    /// Adds a box without a record, by its `box.json`.
    fn add_lost(&mut self, home: &Home, id: &str) {
        let path = home.of_box(id).description();
        let text = match durable::read_text(&path) {
            // It cannot be given a record back.
            Err(error) if error.kind() == IoErrorKind::NotFound => return,
            Err(error) => return self.doubt(id, &error.to_string()),
            Ok(text) => text,
        };
        match serde_json::from_str::<BoxDescription>(&text) {
            Ok(description) => self.add(&description.record, false),
            Err(error) => self.doubt(id, &error.to_string()),
        }
    }

    fn doubt(&mut self, id: &str, why: &str) {
        self.doubts.push(format!(
            "box {id} has no record, its box.json cannot be read, and it may mount any volume and be in any network: {why}"
        ));
    }
}

fn box_directories(home: &Home) -> Result<Vec<String>> {
    let path = home.boxes();
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(&path).doing("listing", &path)? {
        let name = entry.doing("listing", &path)?.file_name();
        ids.extend(name.to_str().filter(|name| is_id(name)).map(ToOwned::to_owned));
    }
    Ok(ids)
}

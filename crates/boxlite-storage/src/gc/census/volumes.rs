//! Named volumes, as far as gc has to do with them: only those that are meant to be removed, and what nothing explains.

use std::collections::HashSet;

use boxlite_home::Home;

use super::Caches;
use crate::catalog::{Catalog, IntentKind};
use crate::volume;

/// An entry of `volumes/`.
#[derive(Debug)]
pub(in crate::gc) struct VolumeEntry {
    pub(in crate::gc) name: String,
    /// `None` for what is not a volume, or cannot be understood.
    pub(in crate::gc) id: Option<String>,
    /// Whether it is meant to be removed.
    pub(in crate::gc) intended: bool,
}

impl Caches {
    /// Lists the volumes, and then what is meant to be removed: every volume that an intent names existed when the intent was
    /// written.
    pub(super) fn list_volumes(&mut self, home: &Home, catalog: &dyn Catalog) {
        let directory = home.volumes();
        let names = match volume::names(home) {
            Ok(names) => names,
            Err(error) => return self.trouble(&directory, error),
        };
        if names.is_empty() {
            return;
        }
        let entry = |name: String| {
            let id = volume::read(home, &name).ok().map(|found| found.id);
            VolumeEntry { name, id, intended: false }
        };
        self.volumes = names.into_iter().map(entry).collect();
        let mut intended = HashSet::new();
        let read = catalog.intents(&mut |intent| {
            if intent.kind == IntentKind::Volume {
                intended.insert(intent.id.to_owned());
            }
        });
        if let Err(error) = read {
            return self.trouble(&home.database(), error);
        }
        for entry in &mut self.volumes {
            entry.intended = entry.id.as_ref().is_some_and(|id| intended.contains(id));
        }
    }
}

//! Explaining a plan: who needs an item, by which source, until when.

use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_home::settings::Settings;
use boxlite_types::gc::{ExplainedItem, Explanation, Fate, SubjectKind};
use boxlite_types::{GcOptions, Result};

use super::category::Category;
use super::plan::{GcPlan, Planned};
use super::rules::{GcScope, Rules, seconds};
use crate::catalog::Catalog;

/// Explains what becomes of everything that has one of `names`: the digest of a disk image or delta, the id of a box,
/// the file name of a base or of anything else that gc judges, or the beginning of one of these; and of all files that it
/// stands on. Changes nothing.
pub fn explain(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    names: &[String],
) -> Result<Explanation> {
    let rules = Rules::new(settings, &GcOptions { all: true, ..GcOptions::default() }, &[]);
    let plan = GcPlan::make(&GcScope { home, catalog: &**catalog, rules });
    Ok(plan.explain(names, &rules))
}

impl GcPlan {
    fn explain(&self, names: &[String], rules: &Rules<'_>) -> Explanation {
        let is_named =
            |name: &str| names.iter().any(|wanted| !wanted.is_empty() && name.starts_with(&**wanted));
        let all = || self.candidates.iter().chain(&self.settled);
        let is_needed = |planned: &&Planned| match &planned.item.fate {
            Fate::Kept { by, .. } => by.iter().any(|holder| is_named(&holder.name)),
            _ => false,
        };
        let explained = |planned: &Planned| self.explained(planned, rules);
        // The files that a named file stands on, whether or not it stays, nearest first.
        let mut below: Vec<FileId> = Vec::new();
        for file in self.census.files.iter().filter(|file| is_named(&file.name)) {
            self.census.chains.visit_below(file.backing, |id| below.push(id));
        }
        let depth = |planned: &Planned| below.iter().position(|id| planned.id == Some(*id));
        let mut needs: Vec<&Planned> = all()
            .filter(|planned| is_needed(planned) || depth(planned).is_some())
            .filter(|planned| !is_named(&planned.item.name))
            .collect();
        needs.sort_by_key(|planned| depth(planned));
        Explanation {
            subjects: all().filter(|planned| is_named(&planned.item.name)).map(explained).collect(),
            needs: needs.into_iter().map(explained).collect(),
            unreadable: self.unreadable.clone(),
        }
    }

    fn explained(&self, planned: &Planned, rules: &Rules<'_>) -> ExplainedItem {
        use boxlite_types::gc::Skip;
        let eligible_at = match &planned.item.fate {
            Fate::Skipped { why: Skip::Grace } => {
                Some(planned.item.modified.saturating_add(seconds(rules.grace)))
            }
            Fate::Removed { .. } => Some(seconds(self.now)),
            _ => None,
        };
        let kind = match planned.category {
            Category::Unfinished => SubjectKind::Unfinished,
            Category::Blob | Category::Layer => SubjectKind::Blob,
            Category::BootFile => SubjectKind::BootFile,
            Category::BoxDirectory => SubjectKind::BoxDirectory,
            Category::Base => SubjectKind::Base,
            Category::Volume => SubjectKind::Volume,
            Category::Delta => SubjectKind::Delta,
            Category::DiskImage => SubjectKind::DiskImage,
            Category::CatalogEntry => SubjectKind::CatalogEntry,
        };
        ExplainedItem { kind, item: planned.item.clone(), eligible_at }
    }
}

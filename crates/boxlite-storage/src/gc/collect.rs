//! One pass, from the first look to the report.

use std::sync::Arc;

use boxlite_home::settings::Settings;
use boxlite_home::{Home, durable};
use boxlite_types::gc::{Fate, Item};
use boxlite_types::{Error, GcOptions, GcReport, Result};

use super::bounds::Bounds;
use super::plan::GcPlan;
use super::rules::{GcScope, Rules};
use super::stale::drop_stale_notes;
use super::verify::HeaderReader;
use crate::catalog::Catalog;

/// Collects garbage in `home`; see the module's description.
///
/// Blocks: milliseconds per thousand boxes, plus what the unlinks take. Takes no lock that a start waits for,
/// except on files that it is about to remove. Several passes may run at once.
///
/// # Errors
/// `Bug` when [`GcOptions::verify`] is asked for, which is for [`collect_verified`]. Anything that could not be read or
/// removed is not an error: the report lists it, and [`GcReport::failed`] says so.
pub fn collect(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    options: &GcOptions,
) -> Result<GcReport> {
    if options.verify {
        return Err(Error::bug("chains are to be verified, and there is no second reader of them"));
    }
    pass(home, catalog, settings, options, None)
}

/// Collects garbage as [`collect`] does, but removes nothing unless `reader` derives the same chains.
///
/// # Errors
/// Whatever keeps `reader` from reading anything.
pub fn collect_verified(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    options: &GcOptions,
    reader: HeaderReader<'_>,
) -> Result<GcReport> {
    pass(home, catalog, settings, options, Some(reader))
}

fn pass(
    home: &Home,
    catalog: &Arc<dyn Catalog>,
    settings: &Settings,
    options: &GcOptions,
    reader: Option<HeaderReader<'_>>,
) -> Result<GcReport> {
    let scope = GcScope { home, catalog: &**catalog, rules: Rules::new(settings, options, &[]) };
    let mut plan = GcPlan::make(&scope);
    if let Some(reader) = reader {
        plan.verify(&scope, reader)?;
    }
    let bounds = Bounds::of_options(options, plan.stored_bytes());
    let report = carry_out(plan, bounds, &scope, options.dry_run);
    if !options.dry_run && report.unreadable.is_empty() {
        drop_stale_notes(&scope);
    }
    Ok(report)
}

/// Carries out as much of the plan as the bounds want.
pub(super) fn carry_out(
    mut plan: GcPlan,
    mut bounds: Bounds<'_>,
    scope: &GcScope<'_>,
    dry_run: bool,
) -> GcReport {
    let mut report = GcReport { dry_run, free_before: plan.free, ..GcReport::default() };
    while let Some(confirmed) = if dry_run { plan.assume(&bounds) } else { plan.confirm(&bounds, scope) } {
        let step = confirmed.sweep(scope);
        bounds.count(&step);
        merge(&mut report, step);
    }
    merge(&mut report, plan.take_settled());
    finish(report, scope)
}

/// Adds what one step has done.
fn merge(report: &mut GcReport, step: GcReport) {
    report.disk_images.extend(step.disk_images);
    report.deltas.extend(step.deltas);
    report.bases.extend(step.bases);
    report.box_directories.extend(step.box_directories);
    report.blobs.extend(step.blobs);
    report.unfinished.extend(step.unfinished);
    report.boot_files.extend(step.boot_files);
    report.volumes.extend(step.volumes);
    report.images.extend(step.images);
    report.failures.extend(step.failures);
    report.partial |= step.partial;
    for trouble in step.unreadable {
        if !report.unreadable.contains(&trouble) {
            report.unreadable.push(trouble);
        }
    }
}

fn finish(mut report: GcReport, scope: &GcScope<'_>) -> GcReport {
    let by_name = [
        &mut report.disk_images,
        &mut report.deltas,
        &mut report.bases,
        &mut report.box_directories,
        &mut report.blobs,
        &mut report.unfinished,
        &mut report.boot_files,
        &mut report.volumes,
    ];
    for items in by_name {
        items.sort_by(|one, other| one.name.cmp(&other.name));
    }
    report.images.sort_by(|one, other| (one.last_used, &one.name).cmp(&(other.last_used, &other.name)));
    let before = report.free_before;
    if !report.dry_run {
        report.free_after = durable::free_space(scope.home.root()).ok();
        report.free_space_change = before
            .zip(report.free_after)
            .map(|(before, after)| after.bytes.cast_signed().wrapping_sub(before.bytes.cast_signed()));
    }
    report.partial |= before.is_none();
    let removed = |item: &&Item| matches!(item.fate, Fate::Removed { .. });
    report.reclaimed = report.items().filter(removed).map(|item| item.allocated).sum();
    report
}

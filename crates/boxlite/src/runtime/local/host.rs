//! This host, its home, and collecting its garbage.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use boxlite_home::EventLog;
use boxlite_home::admission::{Claims, Thresholds, judge};
use boxlite_storage::{disk_image, gc};
use boxlite_types::gc::{DiskTree, Explanation};
use boxlite_types::{
    Acceleration, Activity, Adoption, Allotment, BoxInfo, BoxState, Error, EventAction, EventOptions,
    EventPage, EventSubject, GcOptions, GcReport, HomeEvent, HostInfo, JailInfo, JailMeasure, NodeCheck,
    Purge, Result, SpaceFloors, SpaceInfo, Usage,
};
use boxlite_vm::qemu_img;
use boxlite_vm::shim::{MeasureState, accel, examine_jail};

use super::{Local, node};
use crate::context::LocalContext;
use crate::litebox;
use crate::runtime::operations::HostOperations;

impl HostOperations for Local {
    async fn info(&self) -> Result<HostInfo> {
        self.in_context(|context| {
            let boxes = context.store.boxes()?;
            let info = |listed| litebox::describe_listed(&context.home, listed);
            let infos: Vec<BoxInfo> = boxes.iter().flat_map(info).collect();
            let running: Vec<&str> =
                infos.iter().filter(|info| info.state.is_up()).map(|info| info.id.as_str()).collect();
            let (acceleration, acceleration_problem) = match acceleration(context) {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(error.chain().to_string())),
            };
            Ok(HostInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                home: context.home.root().to_owned(),
                boxes: boxes.len(),
                running: running.len(),
                paused: infos.iter().filter(|info| info.state == BoxState::Paused).count(),
                images: context.store.images()?.len(),
                acceleration,
                acceleration_problem,
                assets: context.assets.report(context.settings.kernel.value.0.as_deref()),
                space: space(context).ok(),
                memory: litebox::memory_figures(context, &running).ok(),
                jail: context.jail.get_or_init(|| jail_info(context)).clone(),
                settings: context.settings.describe(),
            })
        })
        .await
    }

    async fn collect_garbage(&self, options: GcOptions) -> Result<GcReport> {
        self.in_context(move |context| {
            if !options.dry_run
                && let Err(error) = litebox::reap(context).and_then(|()| litebox::expire(context, None))
            {
                // The collection meets the same trouble and names it in its report.
                tracing::warn!(error = %error.chain(), "ended boxes could not be looked for");
            }
            let began = Instant::now();
            let collected = collect(context, &options);
            if !options.dry_run {
                context.fill_reserves(context.settings.emergency_floor.value.0);
            }
            match &collected {
                Ok(report) => {
                    context.gc_metrics.count(report, began.elapsed());
                    if !options.dry_run && report.reclaimed > 0 {
                        let event = HomeEvent::of_home(EventAction::Gc).with("reclaimed", &report.reclaimed);
                        EventLog::of(&context.home).note(&event);
                    }
                }
                Err(_) => context.gc_metrics.count_failure(),
            }
            collected
        })
        .await
    }

    async fn check_node(&self, reclaimable: bool) -> Result<NodeCheck> {
        self.in_context(move |context| Ok(node::check(context, reclaimable))).await
    }

    async fn allotment(&self) -> Result<Allotment> {
        self.in_context(|context| node::allotment(context)).await
    }

    async fn adopt(&self, id: &str) -> Result<Adoption> {
        let id = id.to_owned();
        self.in_context(move |context| litebox::adopt(context, &id)).await
    }

    async fn purge(&self, id: &str) -> Result<Purge> {
        let id = id.to_owned();
        self.in_context(move |context| gc::purge(&context.home, &context.catalog(), &context.settings, &id))
            .await
    }

    async fn adopt_home(&self) -> Result<()> {
        self.in_context(|context| context.store.adopt_home()).await
    }

    async fn explain_garbage(&self, name: &str) -> Result<Explanation> {
        let (images, name) = (self.images.clone(), name.to_owned());
        self.in_context(move |context| {
            let mut names = vec![name.clone()];
            names.extend(context.store.find_box_id(&name));
            if let Ok(image) = images.find_blocking(&name) {
                names.push(disk_image::digest(&image, context.settings.disk_size.value.0));
            }
            let explanation = gc::explain(&context.home, &context.catalog(), &context.settings, &names)?;
            if explanation.subjects.is_empty() && explanation.needs.is_empty() && names.len() == 1 {
                return Err(Error::not_found(format!("no image, box or base is called '{name}'")));
            }
            Ok(explanation)
        })
        .await
    }

    async fn disk_usage(&self) -> Result<Usage> {
        self.in_context(|context| {
            let info = |listed| litebox::describe_listed(&context.home, &listed);
            let infos = context.store.boxes()?.into_iter().flat_map(info);
            let running = infos.filter(|info| info.state.is_up()).map(|info| info.id).collect();
            gc::usage(&context.home, &context.catalog(), &context.settings, &running)
        })
        .await
    }

    async fn disk_tree(&self) -> Result<DiskTree> {
        self.in_context(|context| {
            let info = |listed| litebox::describe_listed(&context.home, &listed);
            let boxes = context.store.boxes()?.into_iter().flat_map(info);
            let boxes = boxes.map(|info| (info.id, (info.name, info.state))).collect();
            gc::tree(&context.home, &context.catalog(), &context.settings, &boxes)
        })
        .await
    }

    async fn events(&self, options: EventOptions) -> Result<EventPage> {
        self.in_context(move |context| {
            let log = EventLog::of(&context.home);
            let mut page = log.read(&options)?;
            // Events that a steward notes have no name.
            let is_nameless = |event: &HomeEvent| event.subject == EventSubject::Box && event.name.is_none();
            for event in page.events.iter_mut().filter(|event| is_nameless(event)) {
                event.name = context.store.find_box(&event.id).ok().map(|record| record.name);
            }
            // The event of a box's removal has its last name.
            if page.events.iter().any(is_nameless) {
                let whole = log.read(&EventOptions::default())?.events.into_iter();
                let names: HashMap<String, String> =
                    whole.filter_map(|event| Some((event.id, event.name?))).collect();
                for event in page.events.iter_mut().filter(|event| is_nameless(event)) {
                    event.name = names.get(&event.id).cloned();
                }
            }
            Ok(page)
        })
        .await
    }

    async fn activity(&self) -> Result<Activity> {
        Ok(self.metrics.read(&self.context.gc_metrics))
    }
}

fn collect(context: &LocalContext, options: &GcOptions) -> Result<GcReport> {
    let (home, catalog, settings) = (&context.home, context.catalog(), &context.settings);
    if !options.verify {
        return gc::collect(home, &catalog, settings, options);
    }
    let reader = |disk: &Path, format: Option<&str>| {
        Ok(qemu_img::backing(disk, format)?.map(|below| (below.path, below.format)))
    };
    gc::collect_verified(home, &catalog, settings, options, &reader)
}

fn acceleration(context: &LocalContext) -> Result<Acceleration> {
    let qemu = context.assets.qemu().ok_or_else(|| Error::unsupported("this host has no QEMU"))?;
    let (choice, qemu) = accel::choose_anew(&context.home, &qemu, context.accel)?;
    Ok(Acceleration { name: choice.accelerator.name().to_owned(), reason: choice.reason, qemu })
}

/// Builds a jail to see what of it this host has.
fn jail_info(context: &LocalContext) -> JailInfo {
    let measures = || -> Result<Vec<JailMeasure>> {
        let assets = context.assets.find()?;
        let Some(policy) = context.jail_policy(&assets.qemu)? else { return Ok(Vec::new()) };
        let choice = accel::choose(&context.home, &assets.qemu, context.accel)?;
        let report = examine_jail(&context.home, &assets.shim, &assets.qemu, &policy, choice.accelerator)?;
        Ok(report
            .measures
            .into_iter()
            .map(|measure| match measure.state {
                MeasureState::InForce(detail) => JailMeasure { name: measure.name, in_force: true, detail },
                MeasureState::Missing(detail) => JailMeasure { name: measure.name, in_force: false, detail },
            })
            .collect())
    };
    let on = context.settings.jail.value;
    match measures() {
        Ok(measures) => JailInfo { on, measures, problem: None },
        Err(error) => JailInfo { on, measures: Vec::new(), problem: Some(error.chain().to_string()) },
    }
}

fn space(context: &LocalContext) -> Result<SpaceInfo> {
    let live = Claims::open(&context.home)?.live()?;
    let claims: Vec<u64> = live.iter().map(|claim| claim.bytes).collect();
    let free = boxlite_home::durable::free_space(context.home.root())?;
    let thresholds = Thresholds::of(&context.settings);
    let verdict = judge(&free, claims.iter().sum(), &thresholds);
    let floors = SpaceFloors {
        hard: thresholds.hard_floor,
        soft: thresholds.soft_floor,
        soft_percent: thresholds.soft_percent,
        emergency: context.settings.emergency_floor.value.0,
    };
    Ok(SpaceInfo { free, verdict, claims, floors: Some(floors) })
}

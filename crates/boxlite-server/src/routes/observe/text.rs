//! The metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use boxlite::Verdict;
use boxlite::gc::{Fate, Skip};
use boxlite::{
    Activity, BoxInfo, BoxState, Consumption, GcReport, HealthStatus, HostInfo, LATENCY_BOUNDS, Latencies,
    LatencyHistogram, StartStage,
};

use crate::connections::ConnectionCounts;

/// Everything that one scrape shows.
pub(super) struct MetricsSnapshot<'a> {
    pub(super) info: &'a HostInfo,
    pub(super) plan: Option<&'a GcReport>,
    pub(super) boxes: &'a [BoxInfo],
    pub(super) activity: &'a Activity,
    pub(super) executions: usize,
    pub(super) connections: ConnectionCounts,
    /// Boxes with series of their own.
    pub(super) measured: &'a [Consumption],
}

/// States of disk images. All are always shown, so that an alert on one never lacks its series.
const IMAGE_STATES: [&str; 7] = ["kept", "orphan", "grace", "in_use", "unknown", "spared", "failed"];

impl MetricsSnapshot<'_> {
    /// Returns the page.
    pub(super) fn text(&self) -> String {
        let mut page = MetricsPage::default();
        page.one("boxlite_info", "gauge", "The version that serves.", &[("version", &self.info.version)], 1);
        self.space(&mut page);
        if let Some(plan) = self.plan {
            images(&mut page, plan);
        }
        self.activity(&mut page);
        self.latencies(&mut page);
        self.connections(&mut page);
        per_box(&mut page, self.measured);
        page.text
    }

    fn space(&self, page: &mut MetricsPage) {
        if let Some(space) = &self.info.space {
            let free = &space.free;
            let mut gauge = |name: &str, help: &str, value: u64| page.one(name, "gauge", help, &[], value);
            gauge("boxlite_filesystem_free_bytes", "Bytes that boxes may still use.", free.bytes);
            gauge("boxlite_filesystem_size_bytes", "Bytes of the home's filesystem.", free.bytes_total);
            gauge("boxlite_filesystem_free_inodes", "Inodes that boxes may still use.", free.inodes);
            gauge("boxlite_filesystem_size_inodes", "Inodes of the home's filesystem.", free.inodes_total);
            let claimed = space.claims.iter().sum();
            gauge("boxlite_claimed_bytes", "Free bytes that starting and running boxes claim.", claimed);
        }
        if let Some(memory) = &self.info.memory {
            let mut gauge = |name: &str, help: &str, value: u64| page.one(name, "gauge", help, &[], value);
            gauge(
                "boxlite_memory_bytes",
                "Memory of the host, or of the server's control group.",
                memory.host.bytes,
            );
            gauge("boxlite_memory_limit_bytes", "Memory that boxes may be promised together.", memory.limit);
            gauge(
                "boxlite_memory_promised_bytes",
                "Memory that running boxes were promised.",
                memory.promised(),
            );
            gauge(
                "boxlite_memory_used_bytes",
                "Memory that running boxes take, as their control groups count it.",
                memory.used,
            );
        }
        page.head("boxlite_start_verdict", "gauge", "1 for what a start would be told now.");
        let verdict = self.info.space.as_ref().map(|space| space.verdict);
        for (name, which) in [
            ("ok", Some(Verdict::Ok)),
            ("warn", Some(Verdict::Warn)),
            ("reject", Some(Verdict::Reject)),
            ("unknown", None),
        ] {
            page.sample("boxlite_start_verdict", &[("verdict", name)], u8::from(verdict == which));
        }
        page.head("boxlite_boxes", "gauge", "Boxes by state.");
        for state in BoxState::ALL {
            let count = self.boxes.iter().filter(|info| info.state == state).count();
            page.sample("boxlite_boxes", &[("state", state.name())], count);
        }
        page.head("boxlite_boxes_health", "gauge", "Running boxes whose health is checked, by their health.");
        for status in HealthStatus::ALL {
            let has = |info: &&BoxInfo| info.health.as_ref().is_some_and(|health| health.status == status);
            let count = self.boxes.iter().filter(has).count();
            page.sample("boxlite_boxes_health", &[("health", status.name())], count);
        }
        page.one("boxlite_images", "gauge", "Images in the catalogue.", &[], self.info.images);
    }

    fn activity(&self, page: &mut MetricsPage) {
        let did = self.activity;
        let mut counter =
            |name: &str, help: &str, value: &dyn Display| page.one(name, "counter", help, &[], value);
        counter("boxlite_boxes_created_total", "Boxes created.", &did.boxes_created);
        counter("boxlite_starts_total", "Starts after which the box ran.", &did.boxes_started);
        counter("boxlite_stops_total", "Boxes stopped on request.", &did.boxes_stopped);
        counter(
            "boxlite_starts_refused_total",
            "Starts refused for want of disk space or memory.",
            &did.starts_refused,
        );
        counter("boxlite_starts_failed_total", "Starts that failed otherwise.", &did.starts_failed);
        counter("boxlite_execs_total", "Commands begun in boxes.", &did.commands);
        counter(
            "boxlite_execs_failed_total",
            "Commands that could not be handed to a box.",
            &did.commands_failed,
        );
        counter("boxlite_gc_runs_total", "Collections, automatic ones included.", &did.gc.runs);
        counter(
            "boxlite_gc_failed_runs_total",
            "Collections that could not do everything.",
            &did.gc.failed_runs,
        );
        counter("boxlite_gc_removed_total", "Things that collections removed.", &did.gc.removed);
        counter(
            "boxlite_gc_removed_bytes_total",
            "Allocated bytes that collections removed.",
            &did.gc.removed_bytes,
        );
        counter(
            "boxlite_gc_evicted_total",
            "Disk images, deltas and boot files that collections removed: caches that are made again.",
            &did.gc.evicted,
        );
        counter("boxlite_gc_evicted_bytes_total", "Allocated bytes of those.", &did.gc.evicted_bytes);
        counter(
            "boxlite_gc_garbage_total",
            "Everything else that collections removed.",
            &did.gc.removed.saturating_sub(did.gc.evicted),
        );
        counter(
            "boxlite_gc_garbage_bytes_total",
            "Allocated bytes of that.",
            &did.gc.removed_bytes.saturating_sub(did.gc.evicted_bytes),
        );
        counter("boxlite_gc_seconds_total", "Seconds that collections took.", &did.gc.seconds);
        page.one(
            "boxlite_executions",
            "gauge",
            "Commands that clients are attached to through this server.",
            &[],
            self.executions,
        );
    }

    fn latencies(&self, page: &mut MetricsPage) {
        let Latencies { starts, start_stages, execs, pulls, snapshot_pauses: pauses, gc } =
            &self.activity.latencies;
        page.histogram("boxlite_start_seconds", "Starts after which the box ran.", &[(None, starts)]);
        let stages: Vec<_> =
            StartStage::ALL.iter().map(|stage| Some(stage.name())).zip(start_stages).collect();
        page.histogram("boxlite_start_stage_seconds", "Stages of starts.", &stages);
        page.histogram(
            "boxlite_exec_begin_seconds",
            "Commands, from the request until they ran.",
            &[(None, execs)],
        );
        page.histogram("boxlite_pull_seconds", "Pulls of images that succeeded.", &[(None, pulls)]);
        page.histogram(
            "boxlite_snapshot_pause_seconds",
            "Guests that stood still for a snapshot or an export.",
            &[(None, pauses)],
        );
        page.histogram("boxlite_gc_run_seconds", "Collections, automatic ones included.", &[(None, gc)]);
    }

    fn connections(&self, page: &mut MetricsPage) {
        let ConnectionCounts { proven, unproven, accepted, refused, evicted } = self.connections;
        page.head("boxlite_connections", "gauge", "Open connections by whether they have passed the gate.");
        page.sample("boxlite_connections", &[("proven", "yes")], proven);
        page.sample("boxlite_connections", &[("proven", "no")], unproven);
        let mut counter = |name: &str, help: &str, value: u64| page.one(name, "counter", help, &[], value);
        counter("boxlite_connections_total", "Connections accepted, refused ones included.", accepted);
        counter(
            "boxlite_connections_refused_total",
            "Connections closed at once: their address had its most.",
            refused,
        );
        counter(
            "boxlite_connections_evicted_total",
            "Connections closed to make room before they passed the gate.",
            evicted,
        );
    }
}

/// Adds what gc would find now.
fn images(page: &mut MetricsPage, plan: &GcReport) {
    let mut states: BTreeMap<&str, (u64, u64)> = IMAGE_STATES.map(|state| (state, (0, 0))).into();
    for item in &plan.disk_images {
        let (count, bytes) = states.entry(state(&item.fate)).or_default();
        *count += 1;
        *bytes += item.allocated;
    }
    page.head("boxlite_disk_images", "gauge", "Disk images by what a collection would make of them.");
    for (state, (count, _)) in &states {
        page.sample("boxlite_disk_images", &[("state", state)], count);
    }
    page.head("boxlite_disk_image_bytes", "gauge", "Bytes allocated to disk images.");
    for (state, (_, bytes)) in &states {
        page.sample("boxlite_disk_image_bytes", &[("state", state)], bytes);
    }
    let mut gauge = |name: &str, help: &str, value: u64| page.one(name, "gauge", help, &[], value);
    gauge("boxlite_reclaimable_bytes", "Allocated bytes that a collection would free.", plan.reclaimed);
    let unreadable = plan.unreadable.len() as u64;
    gauge("boxlite_unreadable_paths", "Paths that keep collections from removing anything.", unreadable);
}

/// Adds the series of each box. Figures of a guest are its own, and may be lies.
fn per_box(page: &mut MetricsPage, boxes: &[Consumption]) {
    let mut series = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Consumption) -> Option<f64>| {
        let measured: Vec<_> = boxes.iter().filter_map(|figures| Some((figures, value(figures)?))).collect();
        if !measured.is_empty() {
            page.head(name, kind, help);
        }
        for (figures, value) in measured {
            page.sample(name, &[("id", &figures.id), ("name", &figures.name)], value);
        }
    };
    let guest = |figures: &Consumption| figures.guest;
    series("boxlite_box_memory_bytes", "gauge", "Memory in use, by the guest's account.", &|figures| {
        guest(figures).map(|guest| guest.memory_total.saturating_sub(guest.memory_available) as f64)
    });
    series("boxlite_box_memory_limit_bytes", "gauge", "Memory of the guest.", &|figures| {
        Some(figures.memory_limit as f64)
    });
    series(
        "boxlite_box_cpu_seconds_total",
        "counter",
        "Processor time, by the guest's account.",
        &|figures| guest(figures).map(|guest| guest.cpu_busy_ms as f64 / 1000.0),
    );
    series("boxlite_box_processes", "gauge", "Processes, by the guest's account.", &|figures| {
        guest(figures).map(|guest| f64::from(guest.processes))
    });
    series("boxlite_box_disk_allocated_bytes", "gauge", "Bytes allocated to its overlays.", &|figures| {
        figures.disk_allocated.map(|bytes| bytes as f64)
    });
    series("boxlite_box_network_sent_bytes_total", "counter", "Bytes that the guest has sent.", &|figures| {
        figures.network.as_ref().map(|network| network.sent_bytes as f64)
    });
    series(
        "boxlite_box_network_received_bytes_total",
        "counter",
        "Bytes that the guest was sent.",
        &|figures| figures.network.as_ref().map(|network| network.received_bytes as f64),
    );
    series("boxlite_box_connections", "gauge", "Connections of its network that are open.", &|figures| {
        figures.network.as_ref().map(|network| network.connections as f64)
    });
    series(
        "boxlite_box_refused_connections_total",
        "counter",
        "Connections that it was refused, having its most.",
        &|figures| figures.network.as_ref().map(|network| network.refused_connections as f64),
    );
    series("boxlite_box_start_seconds", "gauge", "How long its last start took.", &|figures| {
        figures.start.map(|times| times.total as f64 / 1000.0)
    });
}

fn state(fate: &Fate) -> &'static str {
    match fate {
        Fate::Kept { .. } => "kept",
        Fate::Removed { .. } => "orphan",
        Fate::Skipped { why: Skip::Grace } => "grace",
        Fate::Skipped { why: Skip::InUse } => "in_use",
        Fate::Skipped { why: Skip::Unknown } => "unknown",
        Fate::Skipped { .. } => "spared",
        Fate::Failed { .. } => "failed",
    }
}

/// A page being written.
#[derive(Default)]
struct MetricsPage {
    text: String,
}

impl MetricsPage {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    /// Adds a histogram, by stage where there are stages.
    fn histogram(&mut self, name: &str, help: &str, series: &[(Option<&str>, &LatencyHistogram)]) {
        self.head(name, "histogram", help);
        for (stage, counted) in series {
            let stage: Vec<_> = stage.iter().map(|stage| ("stage", *stage)).collect();
            let mut sum = 0;
            let buckets = LATENCY_BOUNDS.iter().zip(&counted.counts);
            for (bound, count) in buckets.map(|(bound, count)| (bound.to_string(), *count)) {
                sum += count;
                let labels = [&stage[..], &[("le", bound.as_str())]].concat();
                self.sample(&format!("{name}_bucket"), &labels, sum);
            }
            let labels = [&stage[..], &[("le", "+Inf")]].concat();
            self.sample(&format!("{name}_bucket"), &labels, counted.total());
            self.sample(&format!("{name}_sum"), &stage, counted.seconds);
            self.sample(&format!("{name}_count"), &stage, counted.total());
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, labels, value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! The metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use boxlite::Verdict;
use boxlite::gc::{Fate, Skip};
use boxlite::{Activity, BoxInfo, BoxState, GcReport, HealthStatus, HostInfo};

use crate::connections::ConnectionCounts;

/// Everything that one scrape shows.
pub(super) struct MetricsSnapshot<'a> {
    pub(super) info: &'a HostInfo,
    pub(super) plan: Option<&'a GcReport>,
    pub(super) boxes: &'a [BoxInfo],
    pub(super) activity: &'a Activity,
    pub(super) executions: usize,
    pub(super) connections: ConnectionCounts,
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
        self.connections(&mut page);
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
        counter("boxlite_gc_seconds_total", "Seconds that collections took.", &did.gc.seconds);
        page.one(
            "boxlite_executions",
            "gauge",
            "Commands that clients are attached to through this server.",
            &[],
            self.executions,
        );
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

    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, labels, value);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! Metrics of boxes and of the server in the public API's figures; `/metrics` has more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use boxlite::{Consumption, ListOptions, StartStage, StartTimes};
use serde::Serialize;

use crate::app::App;
use crate::body::PathParams;
use crate::failure::HttpFailure;

/// Figures of all boxes together, since the server was started.
#[derive(Debug, Serialize)]
pub(super) struct PublicRuntimeMetrics {
    boxes_created_total: u64,
    boxes_failed_total: u64,
    boxes_stopped_total: u64,
    num_running_boxes: usize,
    total_commands_executed: u64,
    total_exec_errors: u64,
}

/// Figures of one box.
#[derive(Debug, Serialize)]
pub(super) struct PublicBoxMetrics {
    commands_executed_total: u64,
    exec_errors_total: u64,
    bytes_sent_total: u64,
    bytes_received_total: u64,
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    network_bytes_sent: Option<u64>,
    network_bytes_received: Option<u64>,
    network_tcp_connections: Option<u64>,
    network_tcp_errors: Option<u64>,
    boot_timing: Option<BootTiming>,
}

/// How long the last start took, in milliseconds, under the public API's names of our stages.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are those of the public API")]
struct BootTiming {
    total_create_ms: u64,
    box_config_ms: u64,
    image_prepare_ms: u64,
    filesystem_setup_ms: u64,
    box_spawn_ms: u64,
    guest_boot_ms: u64,
}

impl From<StartTimes> for BootTiming {
    fn from(times: StartTimes) -> Self {
        Self {
            total_create_ms: times.total,
            box_config_ms: times.of(StartStage::Admission),
            image_prepare_ms: times.of(StartStage::Image),
            filesystem_setup_ms: times.of(StartStage::Overlay),
            box_spawn_ms: times.of(StartStage::Launch),
            guest_boot_ms: times.of(StartStage::Guest),
        }
    }
}

pub(super) async fn of_runtime(
    State(app): State<Arc<App>>,
) -> Result<Json<PublicRuntimeMetrics>, HttpFailure> {
    let activity = app.runtime.activity().await?;
    Ok(Json(PublicRuntimeMetrics {
        boxes_created_total: activity.boxes_created,
        boxes_failed_total: activity.starts_refused + activity.starts_failed,
        boxes_stopped_total: activity.boxes_stopped,
        num_running_boxes: app.runtime.list(ListOptions::default()).await?.len(),
        total_commands_executed: activity.commands,
        total_exec_errors: activity.commands_failed,
    }))
}

pub(super) async fn of_box(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<PublicBoxMetrics>, HttpFailure> {
    let consumption = app.runtime.consumption(&id).await?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let traffic = app.executions.traffic(&consumption.id);
    let network = consumption.network.as_ref();
    Ok(Json(PublicBoxMetrics {
        commands_executed_total: count(&traffic.commands),
        exec_errors_total: count(&traffic.failed),
        bytes_sent_total: count(&traffic.sent),
        bytes_received_total: count(&traffic.received),
        cpu_percent: busy(&consumption),
        network_bytes_sent: network.map(|network| network.sent_bytes),
        network_bytes_received: network.map(|network| network.received_bytes),
        network_tcp_connections: network.map(|network| network.connections),
        network_tcp_errors: network.map(|network| network.refused_connections),
        boot_timing: consumption.start.map(BootTiming::from),
        memory_bytes: consumption
            .guest
            .map(|guest| guest.memory_total.saturating_sub(guest.memory_available)),
    }))
}

/// Returns how busy the guest's processors were since it started, in percent of all of them together.
fn busy(consumption: &Consumption) -> Option<f64> {
    let guest = consumption.guest.as_ref()?;
    let could = guest.uptime_ms as f64 * f64::from(guest.cpus);
    (could > 0.0).then(|| (guest.cpu_busy_ms as f64 * 100.0 / could).clamp(0.0, 100.0))
}

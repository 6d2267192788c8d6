//! What boxes and the server have done, in the public API's figures; `/metrics` has more.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use boxlite::{Consumption, ListOptions};
use serde::Serialize;

use crate::App;
use crate::body::Path;
use crate::executions::count;
use crate::failure::Failure;

/// All boxes together, since this server was started.
#[derive(Debug, Serialize)]
pub(super) struct RuntimeMetrics {
    boxes_created_total: u64,
    boxes_failed_total: u64,
    boxes_stopped_total: u64,
    num_running_boxes: usize,
    total_commands_executed: u64,
    total_exec_errors: u64,
}

/// One box.
#[derive(Debug, Serialize)]
pub(super) struct BoxMetrics {
    commands_executed_total: u64,
    exec_errors_total: u64,
    bytes_sent_total: u64,
    bytes_received_total: u64,
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
}

pub(super) async fn of_runtime(State(app): State<Arc<App>>) -> Result<Answer<RuntimeMetrics>, Failure> {
    let activity = app.runtime.activity().await?;
    Ok(Answer(RuntimeMetrics {
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
    Path(id): Path<String>,
) -> Result<Answer<BoxMetrics>, Failure> {
    let consumption = app.runtime.consumption(&id).await?;
    let traffic = app.executions.traffic(&consumption.id);
    Ok(Answer(BoxMetrics {
        commands_executed_total: count(&traffic.commands),
        exec_errors_total: count(&traffic.failed),
        bytes_sent_total: count(&traffic.sent),
        bytes_received_total: count(&traffic.received),
        cpu_percent: busy(&consumption),
        memory_bytes: consumption
            .guest
            .map(|guest| guest.memory_total.saturating_sub(guest.memory_available)),
    }))
}

/// How busy the guest's processors were since it started, all together, in percent of what they could do.
fn busy(consumption: &Consumption) -> Option<f64> {
    let guest = consumption.guest.as_ref()?;
    let could = guest.uptime_ms as f64 * f64::from(guest.cpus);
    (could > 0.0).then(|| (guest.cpu_busy_ms as f64 * 100.0 / could).clamp(0.0, 100.0))
}

//! A box's QEMU takes over a template's devices; its memory it maps already.

use std::os::fd::RawFd;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::shim::vmm::qmp::{Event, Qmp, QmpError};

/// How long reading some hundred kilobytes of state may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Lets the QEMU behind `qmp`, which waits for it, go on from the state that it reads from its descriptor `state`.
///
/// # Errors
/// `Unsupported` when it cannot; it has ended then, or is to be ended.
pub(crate) async fn restore(
    qmp: &Qmp,
    events: &mut mpsc::UnboundedReceiver<Event>,
    state: RawFd,
) -> Result<()> {
    let restoring = async {
        share_memory(qmp).await?;
        qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{state}") })).await?;
        while let Some(event) = events.recv().await {
            if let Event::Migration { completed } = event {
                return Ok(completed);
            }
        }
        Err(QmpError::Gone { command: "migrate-incoming" })
    };
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Unsupported, format!("QEMU did not take the template: {why}"))
    };
    match tokio::time::timeout(LIMIT, restoring).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(failed(&"it failed to read its state")),
        Ok(Err(error)) => Err(failed(&error).because(error)),
        Err(_) => Err(failed(&format_args!("it took longer than {} s", LIMIT.as_secs()))),
    }
}

/// Has QEMU tell how a migration goes, and leave out memory that both sides have in a file.
pub(super) async fn share_memory(qmp: &Qmp) -> std::result::Result<(), QmpError> {
    let on = |capability: &str| json!({ "capability": capability, "state": true });
    let capabilities = json!({ "capabilities": [on("events"), on("x-ignore-shared")] });
    qmp.execute("migrate-set-capabilities", capabilities).await.map(drop)
}

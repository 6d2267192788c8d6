//! A box's QEMU takes over a template's devices; its memory it maps already.

use std::os::fd::RawFd;
use std::time::Duration;

use boxlite_types::{Error, ErrorKind, Result};
use serde_json::json;
use tokio::sync::mpsc;

use crate::shim::vmm::qmp::{Qmp, QmpError, QmpEvent};

/// How long reading some hundred kilobytes of state may take.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(20);

/// Lets the QEMU behind `qmp`, which waits for it, go on from the state that it reads from its descriptor `state`.
///
/// # Errors
/// `Corrupt` when QEMU does not take the state; `Io` when it fails before that or takes too long, which says nothing of the
/// template. QEMU has ended then, or is to be ended.
pub(crate) async fn restore(
    qmp: &Qmp,
    events: &mut mpsc::UnboundedReceiver<QmpEvent>,
    state: RawFd,
) -> Result<()> {
    let restoring = async {
        ignore_shared_memory(qmp).await.map_err(|error| {
            Error::new(ErrorKind::Io, "QEMU cannot be told of the template").because(error)
        })?;
        take(qmp, events, state)
            .await
            .map_err(|error| Error::new(ErrorKind::Corrupt, "QEMU does not take the template").because(error))
    };
    let late = || {
        Error::new(
            ErrorKind::Io,
            format!("restoring the guest took longer than {} s", RESTORE_TIMEOUT.as_secs()),
        )
    };
    tokio::time::timeout(RESTORE_TIMEOUT, restoring).await.unwrap_or_else(|_| Err(late()))
}

async fn take(
    qmp: &Qmp,
    events: &mut mpsc::UnboundedReceiver<QmpEvent>,
    state: RawFd,
) -> std::result::Result<(), QmpError> {
    const COMMAND: &str = "migrate-incoming";
    qmp.execute(COMMAND, json!({ "uri": format!("fd:{state}") })).await?;
    // The guest runs once its state has been taken; a QEMU that does not take it ends.
    while let Some(event) = events.recv().await {
        if event == QmpEvent::Resumed {
            return Ok(());
        }
    }
    Err(QmpError::Gone { command: COMMAND })
}

/// Has QEMU leave out memory that both sides have in a file.
///
/// It asks for nothing else, such as events: QEMU reads its orders byte by byte, with seven system calls for each, and here the
/// guest waits for it.
async fn ignore_shared_memory(qmp: &Qmp) -> std::result::Result<(), QmpError> {
    set_capabilities(qmp, &["x-ignore-shared"]).await
}

/// Has QEMU tell how a migration goes, and leave out memory that both sides have in a file.
pub(super) async fn share_memory(qmp: &Qmp) -> std::result::Result<(), QmpError> {
    set_capabilities(qmp, &["events", "x-ignore-shared"]).await
}

async fn set_capabilities(qmp: &Qmp, names: &[&str]) -> std::result::Result<(), QmpError> {
    let on: Vec<_> = names.iter().map(|name| json!({ "capability": name, "state": true })).collect();
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": on })).await.map(drop)
}

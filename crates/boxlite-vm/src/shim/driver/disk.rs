//! The disk of the running box: switching from one overlay to another that stands on it.
//!
//! The client has made the new overlay durable under the name of the old one, which is a base by then. So it does not matter to
//! the box's data when the switch happens, or whether: what QEMU writes until then is in the base, below the overlay.
//!
//! # The guest's pause
//! QEMU opens the overlay before the guest stands still. In between the guest waits for one command of QEMU alone, and goes on as
//! soon as that is answered; everything that makes the base durable and recorded comes later.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use boxlite_proto::{DiskIdentity, ShimError};
use boxlite_types::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::hold::{GuestHold, Standstill, StepRefusal};
use super::main_process::ClientId;
use crate::shim::steward::StewardLink;
use crate::shim::vmm::process::OverlayReader;
use crate::shim::vmm::qmp::{Qmp, QmpError};

/// The overlay that QEMU writes to.
#[derive(Debug)]
pub(super) struct ActiveDisk {
    top: TopNode,
    /// The overlay that QEMU has open, and does not write to yet.
    prepared: Option<PreparedDisk>,
    /// A step that is under way, and who asked for it.
    changing: Option<(ClientId, oneshot::Receiver<StepOutcome>)>,
}

/// A client's request.
#[derive(Debug)]
pub(super) enum DiskStep {
    /// Have QEMU open the new overlay, which takes time.
    Prepare,
    /// Have QEMU go over to it while the guest is held.
    Switch(GuestHold),
}

/// The tools of a step.
pub(super) struct DiskTools {
    pub(super) steward: Arc<StewardLink>,
    pub(super) qmp: Arc<Qmp>,
    /// Whether what the guest flushes reaches the host's disk.
    pub(super) flushing: bool,
}

/// The outcome of a step, for the client and for whoever measures the overlay.
#[derive(Debug)]
pub(super) enum DiskOutcome {
    /// QEMU has the new overlay open.
    Prepared,
    /// The box goes on with the new overlay.
    Switched(File, Result<Standstill, StepRefusal>),
    /// The box goes on with the overlay that it had.
    Failed(StepRefusal),
}

/// The outcome of a step, and the disk that QEMU has open after it.
#[derive(Debug)]
enum StepOutcome {
    Prepared(PreparedDisk),
    Switched(PreparedDisk, Result<Standstill, StepRefusal>),
    Failed(Option<PreparedDisk>, StepRefusal),
}

/// An overlay that QEMU has open.
#[derive(Debug)]
struct PreparedDisk {
    overlay: File,
    top: TopNode,
}

/// QEMU's names for an overlay, and a descriptor of it.
#[derive(Debug, Clone)]
struct TopNode {
    /// Counts the overlays of this run.
    number: u32,
    /// The set of descriptors that its file was opened from.
    set: i64,
    /// The overlay, open for reading alone.
    reader: Arc<File>,
}

impl TopNode {
    fn format_node(&self) -> String {
        format!("d{}", self.number)
    }

    fn file_node(&self) -> String {
        format!("f{}", self.number)
    }
}

/// Which file `file` is.
pub(super) fn identity(file: &File) -> Option<DiskIdentity> {
    let found = file.metadata().ok()?;
    Some(DiskIdentity { device: found.dev(), inode: found.ino() })
}

impl ActiveDisk {
    /// The overlay that QEMU was started with.
    pub(super) fn new(overlay: OverlayReader) -> Self {
        let OverlayReader { file, set } = overlay;
        Self {
            top: TopNode { number: 0, set: set.into(), reader: Arc::new(file) },
            prepared: None,
            changing: None,
        }
    }

    /// Which file the overlay is.
    pub(super) fn identity(&self) -> Option<DiskIdentity> {
        identity(&self.top.reader)
    }

    /// Whether QEMU has a new overlay open, and no step is under way.
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared.is_some() && self.changing.is_none()
    }

    /// Begins a step towards the overlay that the steward finds at the box's path; false when one is under way, or nothing is
    /// prepared for a switch.
    pub(super) fn begin(&mut self, client: ClientId, step: DiskStep, tools: DiskTools) -> bool {
        if self.changing.is_some() {
            return false;
        }
        let (told, outcome) = oneshot::channel();
        let (from, prepared) = (self.top.clone(), self.prepared.take());
        match (step, prepared) {
            (DiskStep::Prepare, earlier) => {
                tokio::spawn(async move {
                    let prepared = prepare(&from, earlier, &tools).await;
                    let _ = told.send(match prepared {
                        Ok(prepared) => StepOutcome::Prepared(prepared),
                        Err(refusal) => StepOutcome::Failed(None, refusal),
                    });
                });
            }
            (DiskStep::Switch(hold), Some(prepared)) => {
                tokio::spawn(async move {
                    let outcome = switch(&from, prepared, hold, &tools.qmp).await;
                    let has_switched = matches!(outcome, StepOutcome::Switched(..));
                    let _ = told.send(outcome);
                    if has_switched && let Err(error) = relinquish(&from, &tools.qmp).await {
                        tracing::warn!(%error, "QEMU keeps its right to write to a base");
                    }
                });
            }
            (DiskStep::Switch(_), None) => return false,
        }
        self.changing = Some((client, outcome));
        true
    }

    /// Returns when a step has ended, with the client that asked for it; never, while none is under way.
    pub(super) async fn changed(&mut self) -> (ClientId, DiskOutcome) {
        let Some((client, outcome)) = &mut self.changing else { return std::future::pending().await };
        let outcome = outcome.await;
        let client = *client;
        self.changing = None;
        let given_up = || (ShimError::Vm, "the switch was given up".into());
        let outcome = match outcome.unwrap_or_else(|_| StepOutcome::Failed(None, given_up())) {
            StepOutcome::Prepared(prepared) => {
                self.prepared = Some(prepared);
                DiskOutcome::Prepared
            }
            StepOutcome::Switched(PreparedDisk { overlay, top }, standstill) => {
                self.top = top;
                DiskOutcome::Switched(overlay, standstill)
            }
            StepOutcome::Failed(prepared, refusal) => {
                self.prepared = prepared;
                DiskOutcome::Failed(refusal)
            }
        };
        (client, outcome)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is called by map_err")]
fn vm(error: QmpError) -> StepRefusal {
    (ShimError::Vm, error.to_string())
}

/// Has QEMU open the overlay that lies at the box's path. One that an earlier client had opened, and never switched to, stays
/// open if it is the same.
async fn prepare(
    from: &TopNode,
    earlier: Option<PreparedDisk>,
    tools: &DiskTools,
) -> Result<PreparedDisk, StepRefusal> {
    let DiskTools { steward, qmp, flushing } = tools;
    let steward = Arc::clone(steward);
    let opened = tokio::task::spawn_blocking(move || steward.open_overlay()).await;
    let opened = opened.unwrap_or_else(|error| Err(Error::bug("asking the steward panicked").because(error)));
    if let Some(earlier) = earlier {
        if opened.as_ref().is_ok_and(|[overlay, _]| identity(overlay) == identity(&earlier.overlay)) {
            return Ok(earlier);
        }
        close(&earlier.top, qmp).await;
    }
    let [overlay, reader] = opened.map_err(|error| (ShimError::Vm, error.chain().to_string()))?;
    if identity(&overlay) == identity(&from.reader) {
        return Err((ShimError::Invalid, "the box's disk is the one that it uses already".into()));
    }
    let set = qmp.add_descriptor(overlay.as_fd(), None).await.map_err(vm)?;
    let top = TopNode { number: from.number + 1, set, reader: Arc::new(reader) };
    // The file has a node of its own, which `blockdev-snapshot` leaves as it is: see `relinquish`.
    let mut file = file_node(&top, false);
    let mut format = json!({
        "driver": "qcow2", "node-name": top.format_node(), "file": top.file_node(), "backing": Value::Null,
        "discard": "unmap", "detect-zeroes": "unmap",
    });
    if !flushing {
        for node in [&mut file, &mut format] {
            node["cache"] = json!({ "no-flush": true });
        }
    }
    for node in [file, format] {
        if let Err(error) = qmp.execute("blockdev-add", node).await {
            close(&top, qmp).await;
            return Err(vm(error));
        }
    }
    Ok(PreparedDisk { overlay, top })
}

/// Puts the prepared overlay above the disk in use while the guest is held. A guest that does not come to stand still leaves
/// the overlay prepared; one that was not told to go on in time has gone on by itself.
async fn switch(from: &TopNode, prepared: PreparedDisk, mut hold: GuestHold, qmp: &Qmp) -> StepOutcome {
    let change = json!({ "node": from.format_node(), "overlay": prepared.top.format_node() });
    if let Err(refusal) = hold.standing().await {
        return StepOutcome::Failed(Some(prepared), refusal);
    }
    let switched = qmp.execute("blockdev-snapshot", change).await;
    hold.release();
    match switched {
        Ok(_) => StepOutcome::Switched(prepared, hold.thawed().await),
        Err(error) => {
            close(&prepared.top, qmp).await;
            StepOutcome::Failed(None, vm(error))
        }
    }
}

/// Has QEMU forget an overlay that it does not use, as far as it had opened it.
async fn close(unused: &TopNode, qmp: &Qmp) {
    for node in [unused.format_node(), unused.file_node()] {
        let _ = qmp.execute("blockdev-del", json!({ "node-name": node })).await;
    }
    let _ = qmp.execute("remove-fd", json!({ "fdset-id": unused.set })).await;
}

/// Has QEMU open the base for reading alone, and forget the descriptor with which it could write to it.
async fn relinquish(base: &TopNode, qmp: &Qmp) -> Result<(), QmpError> {
    qmp.add_descriptor(base.reader.as_fd(), Some(base.set)).await?;
    let options = json!([file_node(base, true)]);
    qmp.execute("blockdev-reopen", json!({ "options": options })).await?;
    qmp.execute("remove-fd", json!({ "fdset-id": base.set })).await.map(drop)
}

fn file_node(node: &TopNode, read_only: bool) -> Value {
    json!({
        "driver": "file", "node-name": node.file_node(), "aio": "threads", "discard": "unmap",
        "filename": format!("/dev/fdset/{}", node.set), "read-only": read_only,
    })
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;

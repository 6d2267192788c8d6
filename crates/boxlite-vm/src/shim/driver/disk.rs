//! The disk of the running box: switching from one overlay to another that stands on it.
//!
//! Who asks has made the new overlay durable under the name of the old one, which is a base by then. So it does not matter to
//! the box's data when the switch happens, or whether: what QEMU writes until then is in the base, below the overlay.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use boxlite_proto::{DiskIdentity, ShimError};
use boxlite_types::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::oneshot;

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

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskStep {
    /// Have QEMU open the new overlay, which takes time.
    Prepare,
    /// Have QEMU go over to it, for which the guest stands still.
    Switch,
}

/// What a step needs.
pub(super) struct DiskTools {
    pub(super) steward: Arc<StewardLink>,
    pub(super) qmp: Arc<Qmp>,
    /// Whether what the guest flushes reaches the host's disk.
    pub(super) flushing: bool,
}

/// What came of a step; of a switch, the new overlay, to be measured.
pub(super) type DiskOutcome = Result<Option<File>, (ShimError, String)>;

/// What came of a step, and what QEMU has open after it.
#[derive(Debug)]
struct StepOutcome {
    step: DiskStep,
    prepared: Result<PreparedDisk, (ShimError, String)>,
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

    /// Begins a step towards the overlay that the steward finds at the box's path; false when one is under way.
    pub(super) fn begin(&mut self, client: ClientId, step: DiskStep, tools: DiskTools) -> bool {
        if self.changing.is_some() {
            return false;
        }
        let (told, outcome) = oneshot::channel();
        let (from, prepared) = (self.top.clone(), self.prepared.take());
        tokio::spawn(async move {
            let prepared = match (step, prepared) {
                // Its client has just had it opened, and still has the box's guard.
                (DiskStep::Switch, Some(prepared)) => Ok(prepared),
                (_, prepared) => prepare(&from, prepared, &tools).await,
            };
            let prepared = match (step, prepared) {
                (DiskStep::Switch, Ok(prepared)) => switch(&from, prepared, &tools.qmp).await,
                (_, prepared) => prepared,
            };
            let has_switched = step == DiskStep::Switch && prepared.is_ok();
            let _ = told.send(StepOutcome { step, prepared });
            if has_switched && let Err(error) = relinquish(&from, &tools.qmp).await {
                tracing::warn!(%error, "QEMU keeps its right to write to a base");
            }
        });
        self.changing = Some((client, outcome));
        true
    }

    /// Returns when a step has ended, with who asked for it; never, while none is under way.
    pub(super) async fn changed(&mut self) -> (ClientId, DiskOutcome) {
        let Some((client, outcome)) = &mut self.changing else { return std::future::pending().await };
        let outcome = outcome.await;
        let client = *client;
        self.changing = None;
        let Ok(StepOutcome { step, prepared }) = outcome else {
            return (client, Err((ShimError::Vm, "the switch was given up".into())));
        };
        let outcome = prepared.map(|prepared| match step {
            DiskStep::Prepare => {
                self.prepared = Some(prepared);
                None
            }
            DiskStep::Switch => {
                self.top = prepared.top;
                Some(prepared.overlay)
            }
        });
        (client, outcome)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is called by map_err")]
fn vm(error: QmpError) -> (ShimError, String) {
    (ShimError::Vm, error.to_string())
}

/// Has QEMU open the overlay that lies at the box's path. One that an earlier client had opened, and never switched to, stays
/// open if it is the same.
async fn prepare(
    from: &TopNode,
    earlier: Option<PreparedDisk>,
    tools: &DiskTools,
) -> Result<PreparedDisk, (ShimError, String)> {
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

/// Puts the prepared overlay above the disk in use.
async fn switch(
    from: &TopNode,
    prepared: PreparedDisk,
    qmp: &Qmp,
) -> Result<PreparedDisk, (ShimError, String)> {
    let change = json!({ "node": from.format_node(), "overlay": prepared.top.format_node() });
    match qmp.execute("blockdev-snapshot", change).await {
        Ok(_) => Ok(prepared),
        Err(error) => {
            close(&prepared.top, qmp).await;
            Err(vm(error))
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

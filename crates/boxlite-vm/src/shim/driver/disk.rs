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
    /// A switch that is under way, and who asked for it.
    switching: Option<(ClientId, oneshot::Receiver<SwitchOutcome>)>,
}

/// What came of a switch.
pub(super) type SwitchOutcome = Result<SwitchedDisk, (ShimError, String)>;

/// A disk that QEMU has gone over to.
#[derive(Debug)]
pub(super) struct SwitchedDisk {
    /// The overlay, to be measured.
    pub(super) overlay: File,
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
        Self { top: TopNode { number: 0, set: set.into(), reader: Arc::new(file) }, switching: None }
    }

    /// Which file the overlay is.
    pub(super) fn identity(&self) -> Option<DiskIdentity> {
        identity(&self.top.reader)
    }

    /// Begins a switch to the overlay that the steward finds at the box's path; false when one is under way.
    pub(super) fn begin(
        &mut self,
        client: ClientId,
        steward: Arc<StewardLink>,
        qmp: Arc<Qmp>,
        flushing: bool,
    ) -> bool {
        if self.switching.is_some() {
            return false;
        }
        let (told, outcome) = oneshot::channel();
        let from = self.top.clone();
        tokio::spawn(async move {
            let switched = switch(&from, steward, &qmp, flushing).await;
            let succeeded = switched.is_ok();
            let _ = told.send(switched);
            if succeeded && let Err(error) = relinquish(&from, &qmp).await {
                tracing::warn!(%error, "QEMU keeps its right to write to a base");
            }
        });
        self.switching = Some((client, outcome));
        true
    }

    /// Returns when a switch has ended, with who asked for it; never, while none is under way.
    pub(super) async fn switched(&mut self) -> (ClientId, SwitchOutcome) {
        let Some((client, outcome)) = &mut self.switching else { return std::future::pending().await };
        let outcome = outcome.await;
        let client = *client;
        self.switching = None;
        let outcome = outcome.unwrap_or_else(|_| Err((ShimError::Vm, "the switch was given up".into())));
        if let Ok(switched) = &outcome {
            self.top = switched.top.clone();
        }
        (client, outcome)
    }
}

async fn switch(from: &TopNode, steward: Arc<StewardLink>, qmp: &Qmp, flushing: bool) -> SwitchOutcome {
    let vm = |error: QmpError| (ShimError::Vm, error.to_string());
    let opened = tokio::task::spawn_blocking(move || steward.open_overlay()).await;
    let opened = opened.unwrap_or_else(|error| Err(Error::bug("asking the steward panicked").because(error)));
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
    let change = json!({ "node": from.format_node(), "overlay": top.format_node() });
    for (command, arguments) in
        [("blockdev-add", file), ("blockdev-add", format), ("blockdev-snapshot", change)]
    {
        if let Err(error) = qmp.execute(command, arguments).await {
            for node in [top.format_node(), top.file_node()] {
                let _ = qmp.execute("blockdev-del", json!({ "node-name": node })).await;
            }
            let _ = qmp.execute("remove-fd", json!({ "fdset-id": set })).await;
            return Err(vm(error));
        }
    }
    Ok(SwitchedDisk { overlay, top })
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

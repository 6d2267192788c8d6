//! Keeping the guest as a template, between its agent's hello and its box.
//!
//! Messages for the agent wait at the [`Gate`] until then.

use std::fs::File;
use std::mem;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_types::Result;
use tokio::sync::oneshot;

use crate::shim::launch::TemplateKeep;
use crate::shim::template::{self, Kept};
use crate::shim::vmm::qmp::Qmp;

/// Opens once the guest may hear of its box.
#[derive(Debug)]
pub(in crate::shim) struct Gate(Option<oneshot::Receiver<()>>);

impl Gate {
    pub(in crate::shim) async fn opened(self) {
        if let Some(opened) = self.0 {
            let _ = opened.await;
        }
    }
}

/// How far that is.
#[derive(Debug)]
pub(in crate::shim) enum Keeping {
    /// It is done, or was before; the gate is open.
    Over,
    /// It is not to be; the agent has not said hello, with which the gate opens.
    Unwanted(oneshot::Sender<()>),
    /// It is to be; the agent has not said hello.
    Waiting(Plan),
    /// The guest is paused.
    UnderWay {
        /// To be told how QEMU's part went.
        migrated: Option<oneshot::Sender<bool>>,
        /// Tells that the guest may go on.
        done: oneshot::Receiver<()>,
        /// Opens the gate, as does dropping it.
        gate: oneshot::Sender<()>,
    },
}

/// What it takes.
#[derive(Debug)]
pub(in crate::shim) struct Plan {
    keep: TemplateKeep,
    home: Home,
    memory: File,
    gate: oneshot::Sender<()>,
}

impl Keeping {
    /// For a guest that was kept once and waits for its box.
    pub(in crate::shim) fn not_any_more() -> (Self, Gate) {
        (Self::Over, Gate(None))
    }

    /// For a guest that boots.
    pub(in crate::shim) fn unwanted() -> (Self, Gate) {
        let (gate, opened) = oneshot::channel();
        (Self::Unwanted(gate), Gate(Some(opened)))
    }

    /// For a guest that boots and is to be kept, whose memory is all of the memory file `memory`.
    pub(in crate::shim) fn wanted(keep: TemplateKeep, home: Home, memory: File) -> (Self, Gate) {
        let (gate, opened) = oneshot::channel();
        (Self::Waiting(Plan { keep, home, memory, gate }), Gate(Some(opened)))
    }

    /// The agent said hello: begins, if the guest is `fit` for it. True when the guest is to be left alone until
    /// [`Keeping::done`].
    pub(super) fn greeted(&mut self, fit: bool, qmp: &Arc<Qmp>) -> bool {
        let plan = match mem::replace(self, Self::Over) {
            Self::Waiting(plan) if fit => plan,
            Self::Unwanted(gate) | Self::Waiting(Plan { gate, .. }) => {
                let _ = gate.send(());
                return false;
            }
            Self::Over => return false,
            under_way @ Self::UnderWay { .. } => {
                *self = under_way;
                return true;
            }
        };
        let Plan { keep, home, memory, gate } = plan;
        let ((migrated, told), (finished, done)) = (oneshot::channel(), oneshot::channel());
        let qmp = Arc::clone(qmp);
        tokio::spawn(async move {
            let kept = template::keep(keep, home, memory, &qmp, told).await;
            let _ = finished.send(());
            publish(kept).await;
        });
        *self = Self::UnderWay { migrated: Some(migrated), done, gate };
        true
    }

    /// QEMU has written its state, or failed to.
    pub(super) fn migrated(&mut self, completed: bool) {
        if let Self::UnderWay { migrated, .. } = self
            && let Some(migrated) = migrated.take()
        {
            let _ = migrated.send(completed);
        }
    }

    /// Returns when the guest may go on, whatever came of it; never, when nothing is under way.
    pub(super) async fn done(&mut self) {
        let Self::UnderWay { done, .. } = self else { return std::future::pending().await };
        let _ = done.await;
        if let Self::UnderWay { gate, .. } = mem::replace(self, Self::Over) {
            let _ = gate.send(());
        }
    }
}

/// In the background: the box does not wait for the disk.
async fn publish(kept: Result<Option<Kept>>) {
    let published = match kept {
        Ok(Some(kept)) => tokio::task::spawn_blocking(|| kept.publish()).await,
        Ok(None) => return tracing::debug!("another box keeps this template"),
        Err(error) => return tracing::warn!(error = %error.chain(), "the guest is not kept as a template"),
    };
    match published {
        Ok(Ok(())) => tracing::info!("the guest is kept as a template"),
        Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the template could not be published"),
        Err(error) => tracing::error!(%error, "publishing the template panicked"),
    }
}

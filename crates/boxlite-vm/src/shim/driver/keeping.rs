//! Keeping the guest as a template, between its agent's hello and its box.
//!
//! Messages for the agent wait at the [`Gate`] until then.

use std::mem;
use std::sync::Arc;

use boxlite_types::{Error, Result};
use tokio::sync::oneshot;

use crate::shim::steward::StewardLink;
use crate::shim::template;
use crate::shim::vmm::qmp::Qmp;
use crate::shim::vmm::share_port;
use crate::volume::ShareDevice;

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

/// The amount that it takes.
#[derive(Debug)]
pub(in crate::shim) struct Plan {
    steward: Arc<StewardLink>,
    /// Shares that are plugged in once that is over.
    shares: Vec<ShareDevice>,
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

    /// For a guest that boots and is to be kept by `steward`, and then to have `shares`.
    pub(in crate::shim) fn wanted(steward: Arc<StewardLink>, shares: Vec<ShareDevice>) -> (Self, Gate) {
        let (gate, opened) = oneshot::channel();
        (Self::Waiting(Plan { steward, shares, gate }), Gate(Some(opened)))
    }

    /// Whether shares are to be plugged into the guest.
    pub(super) fn has_shares(&self) -> bool {
        matches!(self, Self::Waiting(plan) if !plan.shares.is_empty())
    }

    /// The agent said hello: begins, if the guest is `fit` for it. True when the guest is to be left alone until
    /// [`Keeping::done`].
    pub(super) fn greeted(&mut self, fit: bool, qmp: &Arc<Qmp>) -> bool {
        let plan = match mem::replace(self, Self::Over) {
            Self::Waiting(plan) if fit || !plan.shares.is_empty() => plan,
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
        let Plan { steward, shares, gate } = plan;
        let ((migrated, told), (finished, done)) = (oneshot::channel(), oneshot::channel());
        let qmp = Arc::clone(qmp);
        tokio::spawn(async move {
            if fit && let Err(error) = keep(steward, &qmp, told).await {
                tracing::warn!(error = %error.chain(), "the guest is not kept as a template");
            }
            // Without one, the guest cannot mount it, and says so.
            if let Err(error) = share_port::plug(&qmp, &shares).await {
                tracing::error!(error = %error.chain(), "the guest has not got its shares");
            }
            let _ = finished.send(());
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

/// Pauses the guest and has it kept, if it can be; the steward makes it durable afterwards.
async fn keep(steward: Arc<StewardLink>, qmp: &Qmp, migrated: oneshot::Receiver<bool>) -> Result<()> {
    let asked = Arc::clone(&steward);
    let Some(state) = answer(move || asked.stage_template()).await? else { return Ok(()) };
    template::tell_state(qmp, &state, migrated).await?;
    // From here on nobody can write to the template but the steward.
    drop(state);
    answer(move || steward.keep_template()).await.map(drop)
}

/// Waits for an answer on a thread that may wait.
async fn answer<T: Send + 'static>(ask: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(ask)
        .await
        .unwrap_or_else(|error| Err(Error::bug("asking the steward panicked").because(error)))
}

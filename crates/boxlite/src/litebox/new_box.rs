//! A box that is recorded, but whose creator has not been told yet.

use std::sync::Arc;

use boxlite_types::{BoxRecord, Phase, Result};

use super::BoxGuard;
use super::remove::remove;
use crate::context::LocalContext;

/// A box that was just recorded; dropping it removes the box again, unless it was kept.
///
/// A creator that gives up drops its future while the box is still being made, never learns the box's id, and could not
/// remove it.
#[derive(Debug)]
pub(crate) struct NewBox {
    context: Arc<LocalContext>,
    record: BoxRecord,
    kept: bool,
}

impl NewBox {
    pub(super) fn of(context: &Arc<LocalContext>, record: BoxRecord) -> Self {
        Self { context: Arc::clone(context), record, kept: false }
    }

    pub(crate) fn record(&self) -> &BoxRecord {
        &self.record
    }

    /// Keeps the box: its creator knows of it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Removes the box, unless somebody else has found it and uses it.
    fn take_back(&self) -> Result<()> {
        match BoxGuard::try_acquire(&self.context, &self.record.id)? {
            Some(guard) if guard.record.phase == Phase::Created => remove(&self.context, &guard),
            _ => Ok(()),
        }
    }
}

impl Drop for NewBox {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.take_back() {
            tracing::warn!(id = self.record.id, error = %error.chain(), "a box whose creation was given up stays");
        }
    }
}

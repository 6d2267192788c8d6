//! Keeping an auto-remove box, whose run may end at any moment, until its caller has learnt how.

use std::time::Duration;

use boxlite_types::{BoxRecord, Result};

use super::Local;
use crate::litebox::Attendance;

/// How long a caller that has started, stopped or left an auto-remove box may take to its next call on it.
const NEXT_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attends a box; dropping it gives the caller some time for the next call, which attends by itself.
#[derive(Debug)]
pub(super) struct Attending {
    attendance: Option<Attendance>,
}

impl Local {
    /// Attends the box of `record` if it is one that removes itself.
    pub(super) async fn attend(&self, record: &BoxRecord) -> Result<Attending> {
        if !record.options.auto_remove {
            return Ok(Attending { attendance: None });
        }
        let id = record.id.clone();
        let begun = self.in_context(move |context| Attendance::begin(&context.home.of_box(&id)));
        Ok(Attending { attendance: begun.await? })
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        if let (Some(attendance), Ok(tokio)) = (self.attendance.take(), tokio::runtime::Handle::try_current())
        {
            // The end of the runtime, and so of the process, ends it at once.
            tokio.spawn(async move {
                tokio::time::sleep(NEXT_CALL_TIMEOUT).await;
                drop(attendance);
            });
        }
    }
}

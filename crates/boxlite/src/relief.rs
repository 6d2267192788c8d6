//! Garbage collection on behalf of running boxes, whose guests write while nobody starts or pulls anything.

use boxlite_home::admission::{Collector, Goal, Missing, Reclaimable};
use boxlite_home::durable;
use boxlite_types::{Result, Verdict};

use crate::context::LocalContext;
use crate::options::{MissingHome, RuntimeOptions};

/// Collects garbage in a home until `wanted` bytes are free, as far as there is any; the pass is shared with everyone
/// who asks at the same time. Blocks, and is what a shim asks before its guest is paused.
///
/// Disk images are evicted only where that makes `wanted` bytes free. With the setting `auto_gc = false` nothing happens.
///
/// # Errors
/// As for opening a runtime on that home, which must exist.
pub fn relieve(options: &RuntimeOptions, wanted: u64) -> Result<()> {
    let options = RuntimeOptions { missing_home: MissingHome::Refuse, ..options.clone() };
    let context = LocalContext::open(&options)?;
    if !context.settings.auto_gc.value {
        return Ok(());
    }
    // A figure that cannot be measured counts as enough: nothing is removed on a guess.
    let lacking = || {
        let free = durable::free_space(context.home.root()).map_or(u64::MAX, |space| space.bytes);
        wanted.saturating_sub(free)
    };
    let missing = || Missing { bytes: lacking(), inodes: 0, share_only: false, critical: true };
    let outlook = |reclaimable: Reclaimable| {
        if lacking() > reclaimable.bytes { Verdict::Reject } else { Verdict::Ok }
    };
    let collected = context.collector().collect(&Goal { keep: &[], missing: &missing, outlook: &outlook })?;
    tracing::info!(bytes = collected.bytes, ran = collected.ran, "garbage was collected for a running box");
    Ok(())
}

//! Garbage collection: a chain of values, each made from the one before.
//!
//! ```text
//! Census ───▶ Marks ─────▶ GcPlan ───────▶ Confirmed ──▶ GcReport
//! what is     who needs    what may be     locked, and    what was
//! there       what         removed         still so       removed
//! ```
//!
//! - The **census** looks at the home once, without a lock and without a write.
//! - The **marks** follow backing chains, by file identity, from the roots: box records, every overlay under `boxes/`,
//!   and every base that stays.
//! - The **plan** holds the fate of each item: kept by whom, skipped why, or to be removed. `--dry-run`, `system df`
//!   and the "could free" of a refusal read it and stop there.
//! - **Confirmed** are candidates that a second look, with their locks held, still finds unneeded.
//! - The **sweep** removes them and reports.
//!
//! # Locking
//!
//! A pass takes non-blocking exclusive locks on what it is about to remove, and no other. A start leases a disk image
//! before it relies on it and checks after locking that the path still names it (`boxlite_home::lease`), so either the
//! second look finds the lease or the overlay, or the start finds the image gone and makes it anew.
//!
//! # Data that cannot be made again
//!
//! A box directory and a base are removed only where an intent says so (`crate::store`), or where the base is only
//! another name of a box's overlay. All other unneeded ones are kept as unexplained, until a person adopts or
//! [`purge`]s them.
//!
//! # Unknown means keep
//!
//! When a directory, a chain or the database cannot be read, or the database is another home's, only unfinished files
//! are removed in this pass, and the report names what was unreadable. A missing disk image is named too, and blocks
//! nothing, since it stands on nothing.
//!
//! A box that nothing explains blocks less, since it could otherwise stop every collection for as long as nobody looks
//! at it. Its `box.json` names the disk image that it needs; where a chain cannot be read, that image stays, and all
//! bases do, which cannot be made again. Where `box.json` cannot be read either, all disk images stay too. Blobs that
//! no image refers to stay as long as there is such a box: once adopted it may be built from them.
//!
//! Bases whose directory leads out of the home stay, since another home may stand on them.

mod attempt;
mod automatic;
mod bounds;
mod category;
mod census;
mod collect;
mod confirm;
mod explain;
mod marks;
mod measure;
mod memory;
mod metrics;
mod plan;
mod purge;
mod rules;
mod stale;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod usage;
mod verify;

pub use automatic::Automatic;
pub use collect::{collect, collect_verified};
pub use explain::explain;
pub use memory::note_release;
pub use metrics::GcMetrics;
pub use purge::purge;
pub use tree::{BoxNames, tree};
pub use usage::usage;
pub use verify::HeaderReader;

pub use crate::catalog::{AskRegistries, BlobPin, BoxPin, Catalog, ImagePin, LayerUser};

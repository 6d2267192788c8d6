//! Images built from layers, against programs that we did not write: umoci unpacks the same layers, e2fsck checks
//! the image, and the kernel mounts it.

#![allow(clippy::disallowed_methods, reason = "scratch files of tests are not durable")]
#![allow(
    clippy::unnecessary_debug_formatting,
    clippy::too_many_arguments,
    reason = "names are bytes; a tar entry has many fields"
)]

mod archive;
mod chain;
mod delta;
mod delta_damage;
mod delta_random;
mod hostile;
mod image;
mod merging;
#[allow(dead_code, reason = "shared with the unit tests of the tree")]
mod model;
mod oracle;
mod plain;
mod random;
mod representation;

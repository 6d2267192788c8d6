//! The storage of a home: images, disk images, overlays, the database, and garbage collection.
//!
//! - [`mod@reference`]: image references, as users write them.
//! - [`image`]: sources, verified blobs and the catalogue.
//! - [`disk`]: copy-on-write overlays, qcow2 headers and backing chains.
//! - [`disk_image`]: read-only disk images, built once from an image's layers.
//! - [`disk_artifact`]: built disk images on their way through a registry.
//! - [`box_file`]: whole boxes as single files.
//! - [`store`]: the SQLite database.
//! - [`volume`]: named volumes.
//! - [`network`]: networks that boxes join.
//! - [`references`]: which boxes use which of the two.
//! - [`gc`]: garbage collection, which is safe beside any number of starts.

pub mod box_file;
mod catalog;
pub mod disk;
pub mod disk_artifact;
pub mod disk_image;
pub mod gc;
pub mod image;
mod named;
pub mod network;
pub mod reference;
pub mod references;
pub mod store;
pub mod volume;

//! Images against programs that we did not write: umoci and skopeo make them, a real registry serves them,
//! e2fsck and debugfs look at the disk images.

mod archives;
mod child;
mod crash;
mod deltas;
mod disk;
mod disk_artifacts;
mod fixture;
mod layers;
mod local;
mod mirrors;
mod proxy;
mod push;
mod reach;
mod registry;

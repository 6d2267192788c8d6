//! Disks of boxes: copy-on-write overlays, and the qcow2 format they have.

pub mod overlay;
pub mod qcow2;

#[cfg(test)]
mod tests;

//! Disks of boxes: read-only disk images, and copy-on-write overlays above them.

pub mod image;
pub mod overlay;
pub mod qcow2;

#[cfg(test)]
mod tests;

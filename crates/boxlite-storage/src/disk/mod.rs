//! Disks of boxes: copy-on-write overlays, and the qcow2 format they have.

mod content_state;
mod damage_sum;
pub mod image_chain;
pub mod overlay;
pub mod qcow2;
pub(crate) mod whole;

/// Whether these are the 64 lower-case hex digits with which boxlite names what it stores.
pub(crate) fn is_digest(name: &[u8]) -> bool {
    name.len() == 64 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;

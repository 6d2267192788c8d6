//! The virtual machine of a box, and everything on its host's side.
//!
//! - [`shim`]: one process per running box; it owns the box's QEMU, its logs and its control socket.
//! - [`guest`]: boot files: the unpacked kernel and the initramfs with the guest agent.
//! - [`net`]: the frame filter between the guest's network card and the user-mode stack, and that stack's process.
//! - [`qemu_img`]: QEMU's account of what a disk stands on.
//! - [`volume`]: shared folders through virtiofsd.

mod exit;
pub mod guest;
pub mod net;
pub mod qemu_img;
pub mod shim;
pub mod volume;

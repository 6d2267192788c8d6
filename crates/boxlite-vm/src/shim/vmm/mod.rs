//! The virtual machine monitor that a shim owns: QEMU's arguments, its process and its QMP channel.

pub(crate) mod process;
pub(crate) mod qemu;
pub(crate) mod qmp;

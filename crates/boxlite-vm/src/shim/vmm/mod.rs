//! The virtual machine monitor that a shim owns: QEMU's arguments, its process and its QMP channel.

mod jailed;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod qemu;
pub(crate) mod qmp;
pub(crate) mod share_port;

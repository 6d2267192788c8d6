//! The names of boot files in `vm/`, shared by the virtual machines that make them and the gc that removes them.

/// The prefix of the name of a template, the memory of a booted guest.
pub const TEMPLATE: &str = "template";

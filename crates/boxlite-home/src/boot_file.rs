//! How boot files are named in `vm/`: by the virtual machines that make them and by the gc that removes them.

/// The prefix of the name of a template, the memory of a booted guest.
pub const TEMPLATE: &str = "template";

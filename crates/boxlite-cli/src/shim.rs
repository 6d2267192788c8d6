//! One shim process per box.
fn main() {}

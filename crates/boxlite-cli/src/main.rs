//! The boxlite command line.
fn main() {}

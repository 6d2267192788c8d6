//! PID 1 of a boxlite guest.
fn main() {}

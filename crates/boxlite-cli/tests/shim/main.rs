//! A real shim, a real QEMU and a real guest: what a box's process does when all goes well and when it is killed.

mod bench;
mod death;
#[path = "../common/ground.rs"]
mod ground;
mod life;
mod space;
mod streams;

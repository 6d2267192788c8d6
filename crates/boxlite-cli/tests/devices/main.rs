//! A real guest's network card and volumes: what it reaches, what reaches it, and what it can't touch.

mod allow;
mod disk_rate;
mod dns;
#[path = "../common/ground.rs"]
mod ground;
mod guest;
mod network;
mod outside;
mod stack;
mod volumes;

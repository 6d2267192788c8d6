//! `boxlite serve`, driven by clients that we did not write and by raw requests: the real program, a real home, real
//! virtual machines.
//!
//! `scripts/test` sets up what these tests need; a machine without it skips them, visibly, and not under `CI=true`.

mod clients;
mod contract;
mod draining;
mod encrypted;
mod executions;
mod images;
mod keys;
mod outliving;
mod page;
mod pool;
mod refusals;
mod schema;
mod serving;
mod survival;
mod tunnels;
mod watching;

#[path = "../cli/home.rs"]
#[allow(dead_code, reason = "shared with the command line's tests, which need more of it")]
mod home;
#[path = "../cli/reach.rs"]
mod reach;

//! The command line as its users have it: the real programs, a real home, real virtual machines.
//!
//! `scripts/test` sets up what these tests need; a machine without it skips them, visibly, and not under `CI=true`.

mod allow;
mod bad_host;
mod bad_input;
mod btrfs;
mod captive;
mod clones;
mod committing;
mod completion;
mod copying;
mod deltas;
mod edges;
mod escape;
mod execs;
mod explain;
mod filesystems;
mod guest_options;
mod home;
mod host_ports;
mod idle;
mod interrupts;
mod kernels;
mod lifecycle;
mod listing;
mod memory;
mod mounts;
mod named_volumes;
mod paused;
mod pressure;
mod quota;
mod reach;
mod restarting;
mod runs;
mod shared;
mod steward;
mod storage;
mod survival;
mod templates;
mod terminal;
mod transfers;
mod tunnels;
mod unexplained;
mod updating;
mod watching;

//! The command line against `boxlite serve`: the journeys of `tests/cli` once more, the same text, through a server of
//! each test's own, so that what is local and what is remote cannot come to differ; and what only a connection can do.
//!
//! Left out because they are about this host and not about a box: `bad_host`, `pressure`, `storage` (gc), `survival`.

#[path = "../cli/bad_input.rs"]
mod bad_input;
#[path = "../cli/committing.rs"]
mod committing;
#[path = "../cli/copying.rs"]
mod copying;
#[path = "../cli/edges.rs"]
mod edges;
#[path = "../cli/execs.rs"]
mod execs;
mod faults;
mod fleet;
#[path = "../cli/guest_options.rs"]
mod guest_options;
#[path = "../cli/home.rs"]
mod home;
#[path = "../cli/idle.rs"]
mod idle;
#[path = "../cli/lifecycle.rs"]
mod lifecycle;
#[path = "../cli/listing.rs"]
mod listing;
#[path = "../cli/memory.rs"]
mod memory;
#[path = "../cli/mounts.rs"]
mod mounts;
mod proxy;
#[path = "../cli/quota.rs"]
mod quota;
mod reach;
#[path = "../cli/restarting.rs"]
mod restarting;
#[path = "../cli/runs.rs"]
mod runs;
mod server;
#[path = "../cli/terminal.rs"]
mod terminal;
#[path = "../cli/transfers.rs"]
mod transfers;
#[path = "../cli/tunnels.rs"]
mod tunnels;
#[path = "../cli/updating.rs"]
mod updating;

//! This host as a node of a cluster: what its scheduler asks, and what is done for that.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`bounded`] | runs a program that is given up after a while: this process never touches a home that may be stuck |
//! | [`probe`] | the figures of a node by such a program, which is `boxlite` itself |
//! | [`health`] | the decision, from figures alone: drain, collect, resume |
//! | [`slurm`] | what Slurm says of a node, and what is told to Slurm |
//! | [`engine`] | the job that this process is part of, by its environment |

pub(crate) mod bounded;
pub(crate) mod engine;
pub(crate) mod health;
pub(crate) mod probe;
pub(crate) mod slurm;

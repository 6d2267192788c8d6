//! The backend of several servers: one front for the boxes of all of them.
//!
//! # State
//!
//! A fleet has none of its own. A box is where a server says that it is; what an operation needs to know, it asks, and what
//! it has learned it forgets with the process. So any number of fronts may work on the same servers.
//!
//! # A server that is down
//!
//! It is named in a warning, once, and left out from then on; the others go on. It may have the box that was not found on
//! the others, and the error says so. Meanwhile boxes are found by their names and whole ids alone, since the beginning of one
//! box's id may be the name of another, there.
//!
//! # What concerns one server
//!
//! Images, volumes, networks, disk usage and garbage are a server's own, and refused here: one server must be named.

mod boxes;
mod choice;
mod node;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxlite_types::{BoxInfo, Error, ErrorKind, Result};
use choice::{BoxCandidate, choose_box};
use futures::future::join_all;
use node::FleetNode;

use super::operations::BoxLifecycle;
use super::rest::{Remote, RemoteOptions};
use boxes::PlacedBox;

/// Several servers.
#[derive(Debug)]
pub(super) struct Fleet {
    nodes: Vec<FleetNode>,
    /// Where boxes were found, by their id.
    found: Mutex<HashMap<String, usize>>,
    /// Boxes that were created here and have not run.
    placed: Mutex<HashMap<String, PlacedBox>>,
}

/// The servers' answers about a box.
struct Answers {
    /// The servers that have one, by position, and theirs.
    found: Vec<(usize, BoxInfo)>,
    /// The answer of a server that can tell neither, such as that several of its boxes could be meant.
    refusal: Option<Error>,
}

impl Fleet {
    /// # Errors
    /// `InvalidInput` for a URL or key that cannot be used, and for a server that is named twice.
    pub(super) fn new(servers: &[RemoteOptions]) -> Result<Self> {
        let mut nodes: Vec<FleetNode> = Vec::new();
        for options in servers {
            let node = FleetNode::new(options)?;
            if nodes.iter().any(|known| known.url() == node.url()) {
                return Err(Error::invalid(format!("the server {} is named twice", node.url())));
            }
            nodes.push(node);
        }
        Ok(Self { nodes, found: Mutex::default(), placed: Mutex::default() })
    }

    /// The server that has the box, and the box's id there.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` where a server that may have it is down; `InvalidInput` when several boxes are meant, naming
    /// their servers.
    pub(super) async fn locate(&self, wanted: &str) -> Result<(&Remote, String)> {
        let (position, id) = self.locate_node(wanted).await?;
        Ok((self.nodes[position].remote(), id))
    }

    async fn locate_node(&self, wanted: &str) -> Result<(usize, String)> {
        let known = lock(&self.found).get(wanted).copied();
        if let Some(position) = known {
            return Ok((position, wanted.to_owned()));
        }
        let Answers { found, refusal } = self.boxes_called(wanted).await;
        let heard_all = refusal.is_none() && !self.nodes.iter().any(FleetNode::is_down);
        let candidates: Vec<BoxCandidate<'_>> = found
            .iter()
            .map(|(position, info)| BoxCandidate {
                node: self.nodes[*position].url(),
                id: &info.id,
                name: &info.name,
            })
            .collect();
        let Some(chosen) = choose_box(wanted, &candidates, heard_all)? else {
            return Err(refusal.unwrap_or_else(|| self.not_found(wanted)));
        };
        let (position, info) = &found[chosen];
        self.remember(&info.id, *position);
        Ok((*position, info.id.clone()))
    }

    /// The boxes that the servers know by that name, id or beginning of an id.
    async fn boxes_called(&self, wanted: &str) -> Answers {
        let asked = self.nodes.iter().map(|node| node.ask(node.remote().inspect(wanted)));
        let mut answers = Answers { found: Vec::new(), refusal: None };
        for (position, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Some(Ok(info)) => answers.found.push((position, info)),
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                Some(Err(error)) => {
                    answers.refusal = Some(error.while_doing(format!("on {}", self.nodes[position].url())));
                }
                None => {}
            }
        }
        answers
    }

    fn remember(&self, id: &str, position: usize) {
        lock(&self.found).insert(id.to_owned(), position);
    }

    fn not_found(&self, wanted: &str) -> Error {
        let (up, down): (Vec<&FleetNode>, Vec<&FleetNode>) =
            self.nodes.iter().partition(|node| !node.is_down());
        let urls = |nodes: &[&FleetNode]| nodes.iter().map(|node| node.url()).collect::<Vec<_>>().join(", ");
        match (up.is_empty(), down.is_empty()) {
            (_, true) => Error::not_found(format!("there is no box '{wanted}' on {}", urls(&up))),
            (true, false) => self.all_down(),
            (false, false) => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "there is no box '{wanted}' on {}; it may be on {}, which cannot be asked",
                    urls(&up),
                    urls(&down)
                ),
            ),
        }
    }

    fn all_down(&self) -> Error {
        let urls: Vec<&str> = self.nodes.iter().map(FleetNode::url).collect();
        Error::new(ErrorKind::Unavailable, format!("none of the servers can be asked: {}", urls.join(", ")))
    }

    /// The refusal of what only one server can be asked.
    pub(super) fn names_several(&self) -> Error {
        Error::invalid(format!(
            "this concerns one server, and {} are named; name one with --url, such as {}",
            self.nodes.len(),
            self.nodes.first().map_or("http://HOST:8100", FleetNode::url)
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

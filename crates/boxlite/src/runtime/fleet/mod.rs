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
//! box's id may be the name of another, there. What cannot be undone is refused by name as well: that server may have another
//! box of the same name, which is the one that is meant.
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
    /// The servers that can tell neither, by position, and why: several of their boxes could be meant, for example.
    refusals: Vec<(usize, Error)>,
}

/// A box that was found by what the caller calls it.
pub(super) struct LocatedBox<'a> {
    /// The server that has it.
    pub(super) remote: &'a Remote,
    pub(super) id: String,
    position: usize,
    wanted: &'a str,
    /// The URLs of servers that may have a box of the same name, and could not be asked.
    silent: Vec<&'a str>,
}

impl LocatedBox<'_> {
    /// Refuses a box that was found by its name while a silent server may have the one that is meant.
    ///
    /// # Errors
    /// `Unavailable`, naming the box's id, by which it is found without doubt.
    pub(super) fn without_doubt(&self) -> Result<()> {
        if self.silent.is_empty() {
            return Ok(());
        }
        let Self { remote, id, wanted, silent, .. } = self;
        let (here, there) = (remote.server(), silent.join(", "));
        let message = format!(
            "'{wanted}' is box {id} on {here}, but {there} cannot be asked and may have another box of that name; \
             if you mean this one, give its id"
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }
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

    /// Finds the box and the server that has it.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` where a server that may have it is down; `InvalidInput` when several boxes are meant, naming
    /// their servers.
    pub(super) async fn locate<'a>(&'a self, wanted: &'a str) -> Result<LocatedBox<'a>> {
        let located = |position: usize, id: String, silent| {
            let remote = self.nodes[position].remote();
            LocatedBox { remote, id, position, wanted, silent }
        };
        let known = lock(&self.found).get(wanted).copied();
        if let Some(position) = known {
            return Ok(located(position, wanted.to_owned(), Vec::new()));
        }
        let Answers { found, refusals } = self.boxes_called(wanted).await;
        let refused = |position| refusals.iter().any(|(refusing, _)| *refusing == position);
        let could_not_tell = |(position, node): &(usize, &FleetNode)| node.is_down() || refused(*position);
        let silent: Vec<&str> =
            self.nodes.iter().enumerate().filter(could_not_tell).map(|(_, node)| node.url()).collect();
        let candidates: Vec<BoxCandidate<'_>> = found
            .iter()
            .map(|(position, info)| BoxCandidate {
                node: self.nodes[*position].url(),
                id: &info.id,
                name: &info.name,
            })
            .collect();
        let Some(chosen) = choose_box(wanted, &candidates, silent.is_empty())? else {
            let refusal = refusals.into_iter().next().map(|(_, error)| error);
            return Err(refusal.unwrap_or_else(|| self.not_found(wanted)));
        };
        let (position, info) = &found[chosen];
        self.remember(&info.id, *position);
        let silent = if info.id == wanted { Vec::new() } else { silent };
        Ok(located(*position, info.id.clone(), silent))
    }

    /// The boxes that the servers know by that name, id or beginning of an id.
    async fn boxes_called(&self, wanted: &str) -> Answers {
        let asked = self.nodes.iter().map(|node| node.ask(node.remote().inspect(wanted)));
        let mut answers = Answers { found: Vec::new(), refusals: Vec::new() };
        for (position, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Some(Ok(info)) => answers.found.push((position, info)),
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                Some(Err(error)) => {
                    let error = error.while_doing(format!("on {}", self.nodes[position].url()));
                    answers.refusals.push((position, error));
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

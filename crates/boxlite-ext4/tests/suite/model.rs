//! What a stack of layers means, said as simply as possible: a map from paths, and the set of paths that the
//! current layer touched. Slow, and with nothing in common with the tree it is compared with.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Path = Vec<String>;

/// One entry of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    File(String, u8),
    Directory(String, u8),
    Symlink(String, String),
    Hardlink(String, String),
    /// Of a name in a directory.
    Whiteout(String, String),
    Opaque(String),
}

impl Op {
    /// The entry's path in the archive.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path, _)
            | Self::Directory(path, _)
            | Self::Symlink(path, _)
            | Self::Hardlink(path, _) => path.clone(),
            Self::Whiteout(directory, name) => format!("{directory}/.wh.{name}"),
            Self::Opaque(directory) => format!("{directory}/.wh..wh..opq"),
        }
    }
}

/// What a path is; the number tells which paths are one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    File(u8, usize),
    Directory(u8),
    Symlink(String, usize),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<Path, Node>,
    touched: BTreeSet<Path>,
    files: usize,
    strict: bool,
}

#[derive(Debug)]
pub(crate) struct Refused;

fn split(path: &str) -> Path {
    let mut parts: Path = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part.to_owned());
        }
    }
    parts
}

impl Model {
    /// Refuses also what umoci refuses although it has a meaning elsewhere.
    pub(crate) fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    pub(crate) fn next_layer(&mut self) {
        self.touched.clear();
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        match op {
            Op::Whiteout(directory, name) => {
                let mut path = self.resolve(&split(directory))?;
                path.push(name.clone());
                self.hide(&path);
            }
            Op::Opaque(directory) => {
                let path = self.resolve(&split(directory))?;
                for child in self.below(&path) {
                    self.hide(&child);
                }
            }
            Op::File(path, content) => {
                self.files += 1;
                let node = Node::File(*content, self.files);
                self.replace(path, node)?;
            }
            Op::Symlink(path, target) => {
                self.files += 1;
                let node = Node::Symlink(target.clone(), self.files);
                self.replace(path, node)?;
            }
            Op::Directory(path, mode) => {
                let place = self.place(path)?;
                if !matches!(self.nodes.get(&place), Some(Node::Directory(_))) {
                    self.remove(&place);
                }
                self.put(place, Node::Directory(*mode));
            }
            Op::Hardlink(path, target) => {
                let place = self.place(path)?;
                let target = split(target);
                let (last, parents) = target.split_last().ok_or(Refused)?;
                let mut found = self.resolve(parents)?;
                found.push(last.clone());
                if self.strict && found.starts_with(&place) {
                    return Err(Refused);
                }
                match self.nodes.get(&found).cloned() {
                    None | Some(Node::Directory(_)) => return Err(Refused),
                    Some(node) => {
                        self.remove(&place);
                        self.put(place, node);
                    }
                }
            }
        }
        Ok(())
    }

    fn replace(&mut self, path: &str, node: Node) -> Result<(), Refused> {
        let place = self.place(path)?;
        self.remove(&place);
        self.put(place, node);
        Ok(())
    }

    /// Follows links in all of a path, missing parts included.
    fn resolve(&self, path: &[String]) -> Result<Path, Refused> {
        let mut ahead: Vec<String> = path.iter().rev().cloned().collect();
        let mut at = Path::new();
        let mut followed = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            if let Some(Node::Symlink(target, _)) = self.nodes.get(&at) {
                followed += 1;
                if followed > 40 {
                    return Err(Refused);
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                ahead.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        Ok(at)
    }

    /// Where a path leads, its parents made.
    fn place(&mut self, path: &str) -> Result<Path, Refused> {
        let path = split(path);
        let (last, parents) = path.split_last().ok_or(Refused)?;
        let parent = self.resolve(parents)?;
        for length in 1..=parent.len() {
            let part = parent[..length].to_vec();
            match self.nodes.get(&part) {
                Some(Node::Directory(_)) => {}
                None => {
                    self.nodes.insert(part, Node::Directory(0o55));
                }
                Some(_) if self.strict || self.touched.contains(&part) => return Err(Refused),
                Some(_) => {
                    self.nodes.insert(part.clone(), Node::Directory(0o55));
                }
            }
        }
        Ok([parent, vec![last.clone()]].concat())
    }

    fn put(&mut self, place: Path, node: Node) {
        for length in 1..=place.len() {
            self.touched.insert(place[..length].to_vec());
        }
        self.nodes.insert(place, node);
    }

    fn remove(&mut self, place: &Path) {
        self.nodes.retain(|path, _| !path.starts_with(place));
    }

    fn hide(&mut self, path: &Path) {
        if self.touched.contains(path) {
            for child in self.below(path) {
                self.hide(&child);
            }
        } else {
            self.remove(path);
        }
    }

    fn below(&self, path: &Path) -> Vec<Path> {
        self.nodes
            .keys()
            .filter(|child| child.len() == path.len() + 1 && child.starts_with(path))
            .cloned()
            .collect()
    }
}

/// The tree by path, files named by the first path that leads to them.
pub(crate) fn canonical(nodes: &BTreeMap<Path, Node>) -> BTreeMap<Path, String> {
    let mut first: BTreeMap<usize, &Path> = BTreeMap::new();
    for (path, node) in nodes {
        if let Node::File(_, id) | Node::Symlink(_, id) = node {
            first.entry(*id).or_insert(path);
        }
    }
    nodes
        .iter()
        .map(|(path, node)| {
            let text = match node {
                Node::File(content, id) => format!("file {content} of {:?}", first[id]),
                Node::Symlink(target, id) => format!("link to {target} of {:?}", first[id]),
                Node::Directory(mode) => format!("directory {mode:o}"),
            };
            (path.clone(), text)
        })
        .collect()
}

/// Numbers from a seed, for stacks that must be the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(4);
        (0..depth).map(|_| ["a", "b", "c", "d"][self.below(4)]).collect::<Vec<_>>().join("/")
    }

    /// An entry that collides with others as often as can be.
    pub(crate) fn op(&mut self) -> Op {
        let path = self.path();
        match self.below(13) {
            0..=3 => Op::File(path, self.below(256) as u8),
            4..=6 => Op::Directory(path, self.below(64) as u8),
            7 => {
                let target = ["/", "", "../", "../../", "./"][self.below(5)].to_owned() + &self.path();
                Op::Symlink(path, target)
            }
            8 | 9 => Op::Hardlink(path, self.path()),
            10 | 11 => Op::Whiteout(path, ["a", "b", "c", "d"][self.below(4)].to_owned()),
            _ => Op::Opaque(path),
        }
    }
}

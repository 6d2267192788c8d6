//! Following backing chains by file identity.
//!
//! A backing name leads to the home's own file of that name and to the literal target ([`BackingDirectories`]); where
//! these are two files, the chain forks, and everything on either branch counts.
//!
//! Only regular files are opened, without following a symlink in the last component and without ever blocking.
//! One `pread` reads a header. Files that several overlays share are resolved once per [`Chains`], so a pass over
//! many boxes costs one open and one read per overlay. Depth and cycles are bounded by [`DEEPEST`].

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use boxlite_home::durable::FileId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::header::{BOUND, BackingFormat, Qcow2Header, is_qcow2};
use super::name::{BackingDirectories, local_path};

/// The longest chain that is followed, in files below the overlay.
pub const DEEPEST: usize = 64;

/// Distinct backing names that are remembered; beyond it names are resolved again, which bounds memory.
const REMEMBERED_NAMES: usize = 4096;

/// Files that are read for one overlay at most, in all branches.
const MAX_FILES: usize = 4 * DEEPEST;

/// A chain that could not be read to its end: everything it might reach must be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The file that could not be read.
    pub path: PathBuf,
    /// Why, as the end of a sentence.
    pub why: String,
    /// Nothing is at the path now.
    pub missing: bool,
}

impl Unknown {
    fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into(), missing: false }
    }
}

/// The target of a file's backing reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainLink {
    /// To nothing: the file stands alone.
    End,
    /// To this file.
    File(NodeIndex),
    /// To two files that have the name, the home's own first.
    Fork(ForkIndex),
    /// To a raw file that is not there now. It stands on nothing, so there is nothing to keep.
    Missing(UnknownIndex),
    /// To something that could not be found out.
    Unknown(UnknownIndex),
}

impl ChainLink {
    /// Why the chain is not whole, if this is an end of that kind.
    pub fn problem(self) -> Option<UnknownIndex> {
        match self {
            Self::Missing(index) | Self::Unknown(index) => Some(index),
            Self::End | Self::File(_) | Self::Fork(_) => None,
        }
    }

    /// Of two ends of branches, the one about which less is known.
    fn or_worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown(_), _) | (Self::Missing(_), Self::End) => self,
            (_, other) => other,
        }
    }
}

/// Where a chain forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkIndex(u32);

/// A file below some overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIndex(u32);

/// One of [`Chains::unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownIndex(u32);

#[derive(Debug, Clone, Copy)]
struct Node {
    id: FileId,
    next: ChainLink,
}

/// An overlay whose first link was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Which file the overlay is.
    pub id: FileId,
    /// Bytes allocated to it.
    pub allocated: u64,
    /// When it was last modified, in nanoseconds since 1970.
    pub modified: i64,
    /// Its backing file.
    pub backing: ChainLink,
}

/// Backing chains met so far, sharing what they have in common.
#[derive(Debug)]
pub struct Chains {
    nodes: Vec<Node>,
    by_id: HashMap<FileId, NodeIndex>,
    by_name: HashMap<Box<[u8]>, (BackingFormat, ChainLink)>,
    forks: Vec<[ChainLink; 2]>,
    unknown: Vec<Unknown>,
    home: Option<BackingDirectories>,
    /// Files read for the present overlay.
    files_read: usize,
    buffer: Box<[u8; BOUND]>,
}

impl Chains {
    /// No chains yet. A backing name stands for a file of `home` too, if there is one.
    pub fn new(home: Option<BackingDirectories>) -> Self {
        Self {
            nodes: Vec::new(),
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            forks: Vec::new(),
            unknown: Vec::new(),
            home,
            files_read: 0,
            buffer: Box::new([0; BOUND]),
        }
    }

    /// Reads the overlay `name` in the open directory and resolves what is below it.
    ///
    /// `path` names the overlay in messages and is where its relative names start. `Ok(None)`: it is gone.
    pub fn follow(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &dyn Fn() -> PathBuf,
    ) -> Result<Option<Followed>, Unknown> {
        let unknown = |why: String| Unknown::new(&path(), why);
        self.files_read = 0;
        let file = match open_at(directory, name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(unknown("it is a symlink".to_owned())),
            Err(errno) => return Err(unknown(format!("it cannot be opened: {errno}"))),
        };
        let stat =
            rustix::fs::fstat(&file).map_err(|errno| unknown(format!("it cannot be examined: {errno}")))?;
        if !is_regular(&stat) {
            return Err(unknown("it is not a regular file".to_owned()));
        }
        let read = read_start(&file, &mut self.buffer)
            .map_err(|errno| unknown(format!("it cannot be read: {errno}")))?;
        drop(file);
        let id = id_of(&stat);
        let backing =
            match Qcow2Header::parse(&self.buffer[..read]).map_err(|bad| unknown(bad.to_string()))?.backing {
                None => ChainLink::End,
                Some(backing) => match self.by_name.get(backing.name) {
                    Some((format, link)) if *format == backing.format => *link,
                    _ => {
                        let (name, format) = (backing.name.to_vec(), backing.format);
                        self.resolve(&name, format, &path(), &mut vec![id])
                    }
                },
            };
        let allocated = (stat.st_blocks as u64).saturating_mul(512);
        Ok(Some(Followed {
            id,
            allocated,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            backing,
        }))
    }

    /// The files below an overlay, nearest first, and how the chain ends.
    pub fn below(&self, first: ChainLink) -> (Vec<FileId>, ChainLink) {
        let mut files = Vec::new();
        let end = self.visit_below(first, |id| files.push(id));
        (files, end)
    }

    /// Calls `visit` for every file below an overlay, nearest first and each once; returns how the chain ends: of
    /// several branches, the end about which least is known.
    pub fn visit_below(&self, first: ChainLink, mut visit: impl FnMut(FileId)) -> ChainLink {
        let mut link = first;
        // Links point at nodes that were complete before, or to `Unknown`: there is no cycle among nodes.
        while let ChainLink::File(index) = link {
            let node = &self.nodes[index.0 as usize];
            visit(node.id);
            link = node.next;
        }
        let ChainLink::Fork(fork) = link else { return link };
        // Branches can meet again, so following each by itself could take forever.
        let mut seen = HashSet::new();
        let mut end = ChainLink::End;
        let mut branches = self.forks[fork.0 as usize].to_vec();
        branches.reverse();
        while let Some(link) = branches.pop() {
            match link {
                ChainLink::File(index) if seen.insert(index.0) => {
                    let node = &self.nodes[index.0 as usize];
                    visit(node.id);
                    branches.push(node.next);
                }
                ChainLink::File(_) => {}
                ChainLink::Fork(fork) => branches.extend(self.forks[fork.0 as usize].iter().rev()),
                other => end = end.or_worse(other),
            }
        }
        end
    }

    /// Why a link is [`ChainLink::Unknown`] or [`ChainLink::Missing`].
    pub fn unknown(&self, index: UnknownIndex) -> &Unknown {
        &self.unknown[index.0 as usize]
    }

    /// Whether this end is one that is missing now.
    pub(crate) fn is_missing(&self, end: ChainLink) -> bool {
        end.problem().is_some_and(|index| self.unknown(index).missing)
    }

    fn give_up(&mut self, path: &Path, why: impl Into<String>) -> ChainLink {
        ChainLink::Unknown(self.note(Unknown::new(path, why)))
    }

    fn note(&mut self, unknown: Unknown) -> UnknownIndex {
        self.unknown.push(unknown);
        UnknownIndex(self.unknown.len() as u32 - 1)
    }

    /// Resolves the reference `name` in the header of the file `holder`; `trail` are the files above.
    fn resolve(
        &mut self,
        name: &[u8],
        format: BackingFormat,
        holder: &Path,
        trail: &mut Vec<FileId>,
    ) -> ChainLink {
        if trail.len() > DEEPEST {
            return self.give_up(holder, format!("its chain is deeper than {DEEPEST} files"));
        }
        let Some(local) = local_path(name) else {
            let shown = String::from_utf8_lossy(&name[..name.len().min(80)]).into_owned();
            return self.give_up(holder, format!("its backing file {shown:?} is not a path"));
        };
        if format == BackingFormat::Other {
            return self.give_up(holder, "its backing format is neither raw nor qcow2");
        }
        self.files_read += 1;
        if self.files_read > MAX_FILES {
            return self
                .give_up(holder, format!("its chain has more than {MAX_FILES} files in all branches"));
        }
        let literal = holder.parent().unwrap_or(Path::new("/")).join(local);
        let own = self.home.as_ref().and_then(|home| home.own(name, format)).filter(|own| *own != literal);
        let own_link = own.as_deref().and_then(|own| self.resolve_existing(own, format, trail));
        // Another user's home, of which this one is a copy, need not be readable.
        let is_foreign = own_link.is_some() && is_denied(&literal);
        let literal_link = if is_foreign { None } else { self.resolve_existing(&literal, format, trail) };
        let link = match (own_link, literal_link) {
            (Some(own), Some(literal)) if self.same_file(own, literal) => own,
            (Some(own), Some(literal)) => self.fork(own, literal),
            (Some(link), None) | (None, Some(link)) => link,
            (None, None) => self.missing(own.as_deref().unwrap_or(&literal), holder, format),
        };
        let is_whole = self.visit_below(link, |_| {}) == ChainLink::End;
        if is_whole && local.is_absolute() && self.by_name.len() < REMEMBERED_NAMES {
            self.by_name.insert(name.into(), (format, link));
        }
        link
    }

    /// Whether both links lead to the same file, and to the same below it.
    fn same_file(&self, one: ChainLink, other: ChainLink) -> bool {
        let node = |link| match link {
            ChainLink::File(index) => Some(&self.nodes[index.0 as usize]),
            _ => None,
        };
        let (one, other) = (node(one), node(other));
        one.zip(other).is_some_and(|(one, other)| one.id == other.id && one.next == other.next)
    }

    fn fork(&mut self, own: ChainLink, literal: ChainLink) -> ChainLink {
        self.forks.push([own, literal]);
        ChainLink::Fork(ForkIndex(self.forks.len() as u32 - 1))
    }

    /// A file that is not there now may be there again in a moment: an unmounted disk, a directory being restored.
    fn missing(&mut self, path: &Path, holder: &Path, format: BackingFormat) -> ChainLink {
        let why = format!("it is missing, and {} stands on it", holder.display());
        let index = self.note(Unknown { missing: true, ..Unknown::new(path, why) });
        let stands_on_nothing = format == BackingFormat::Raw;
        if stands_on_nothing { ChainLink::Missing(index) } else { ChainLink::Unknown(index) }
    }

    /// `None` when nothing is there.
    fn resolve_existing(
        &mut self,
        path: &Path,
        format: BackingFormat,
        trail: &mut Vec<FileId>,
    ) -> Option<ChainLink> {
        if format == BackingFormat::Raw {
            return match rustix::fs::statat(rustix::fs::CWD, path, AtFlags::empty()) {
                Ok(stat) if is_regular(&stat) => Some(self.node(id_of(&stat), ChainLink::End)),
                Ok(_) => Some(self.give_up(path, "it is not a regular file")),
                Err(Errno::NOENT | Errno::NOTDIR) => None,
                Err(errno) => Some(self.give_up(path, format!("it cannot be examined: {errno}"))),
            };
        }
        let file = match open(path) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return None,
            Err(errno) => return Some(self.give_up(path, format!("it cannot be opened: {errno}"))),
        };
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) if is_regular(&stat) => stat,
            Ok(_) => return Some(self.give_up(path, "it is not a regular file")),
            Err(errno) => return Some(self.give_up(path, format!("it cannot be examined: {errno}"))),
        };
        let id = id_of(&stat);
        if trail.contains(&id) {
            return Some(self.give_up(path, "its chain is a cycle"));
        }
        if let Some(known) = self.by_id.get(&id).filter(|known| !self.ends_raw_at(**known)) {
            return Some(ChainLink::File(*known));
        }
        let read = match read_start(&file, &mut self.buffer) {
            Ok(read) => read,
            Err(errno) => return Some(self.give_up(path, format!("it cannot be read: {errno}"))),
        };
        drop(file);
        if format == BackingFormat::Unnamed && !is_qcow2(&self.buffer[..read]) {
            return Some(self.node(id, ChainLink::End));
        }
        let (next, relative) = match Qcow2Header::parse(&self.buffer[..read]) {
            Err(bad) => (self.give_up(path, bad.to_string()), false),
            Ok(Qcow2Header { backing: None, .. }) => (ChainLink::End, false),
            Ok(Qcow2Header { backing: Some(backing), .. }) => {
                let (name, format) = (backing.name.to_vec(), backing.format);
                trail.push(id);
                let next = self.resolve(&name, format, path, trail);
                trail.pop();
                let relative = local_path(&name).is_none_or(Path::is_relative);
                (next, relative && !self.is_own(&name, format, next))
            }
        };
        // The meaning of a relative name that does not lead to the home's own file, and whether a chain is too deep or a cycle, depend on where one comes
        // from, so such a file is not shared between chains.
        let is_whole = self.visit_below(next, |_| {}) == ChainLink::End;
        if relative || !is_whole {
            return Some(self.fresh_node(id, next));
        }
        Some(self.node(id, next))
    }

    /// Whether the link leads to the home's own file of this name alone, as from everywhere else.
    fn is_own(&self, name: &[u8], format: BackingFormat, link: ChainLink) -> bool {
        let ChainLink::File(index) = link else { return false };
        let own = self.home.as_ref().and_then(|home| home.own(name, format));
        let found = own.and_then(|own| rustix::fs::statat(rustix::fs::CWD, &own, AtFlags::empty()).ok());
        found.is_some_and(|stat| id_of(&stat) == self.nodes[index.0 as usize].id)
    }

    /// Whether the remembered node was reached as a raw file, whose header (if it has one) was not read.
    fn ends_raw_at(&self, index: NodeIndex) -> bool {
        self.nodes[index.0 as usize].next == ChainLink::End
    }

    fn node(&mut self, id: FileId, next: ChainLink) -> ChainLink {
        if let Some(known) = self.by_id.get(&id)
            && self.nodes[known.0 as usize].next == next
        {
            return ChainLink::File(*known);
        }
        let link = self.fresh_node(id, next);
        if let ChainLink::File(index) = link {
            self.by_id.insert(id, index);
        }
        link
    }

    fn fresh_node(&mut self, id: FileId, next: ChainLink) -> ChainLink {
        let index = NodeIndex(self.nodes.len() as u32);
        self.nodes.push(Node { id, next });
        ChainLink::File(index)
    }
}

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// Opens without leaving a trace in the access time, where the file's owner lets us.
pub(in crate::disk) fn open_at(
    directory: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(directory, name, FLAGS.union(OFlags::NOATIME), Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, name, FLAGS, Mode::empty()),
        other => other,
    }
}

/// Opens a backing file, which may be named through symlinks; what they lead to is opened without following any.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    match open_at(rustix::fs::CWD, path) {
        Err(Errno::LOOP) => {
            let real = std::fs::canonicalize(path)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::LOOP))?;
            open_at(rustix::fs::CWD, &real)
        }
        other => other,
    }
}

/// Whether this process may not even look at what is at the path.
fn is_denied(path: &Path) -> bool {
    rustix::fs::statat(rustix::fs::CWD, path, AtFlags::empty()).is_err_and(|errno| errno == Errno::ACCESS)
}

/// A time of `stat` in nanoseconds since 1970, saturating.
pub(crate) fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn id_of(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

/// Reads up to [`BOUND`] bytes from the start; fewer when the file is shorter.
pub(in crate::disk) fn read_start(file: &OwnedFd, buffer: &mut [u8; BOUND]) -> Result<usize, Errno> {
    loop {
        match rustix::io::pread(file.as_fd(), &mut buffer[..], 0) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

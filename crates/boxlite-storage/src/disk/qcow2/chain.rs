//! Following backing chains by file identity.
//!
//! Only regular files are opened, without following a symlink in the last component and without ever blocking.
//! One `pread` reads a header. Files that several overlays share are resolved once per [`Chains`], so a pass over
//! many boxes costs one open and one read per overlay. Depth and cycles are bounded by [`DEEPEST`].

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use boxlite_home::durable::FileId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::header::{BOUND, BackingFormat, Qcow2Header, is_qcow2};
use super::name::local_path;

/// The longest chain that is followed, in files below the overlay.
pub const DEEPEST: usize = 64;

/// Distinct backing names that are remembered; beyond it names are resolved again, which bounds memory.
const REMEMBERED_NAMES: usize = 4096;

/// A chain that could not be read to its end: everything it might reach must be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The file that could not be read.
    pub path: PathBuf,
    /// Why, as the end of a sentence.
    pub why: String,
}

/// Where a file's backing reference leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainLink {
    /// To nothing: the file stands alone.
    End,
    /// To this file.
    File(NodeIndex),
    /// To a name that nothing has any more; there is nothing to keep.
    Dangling,
    /// Nobody knows.
    Unknown(UnknownIndex),
}

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
    unknown: Vec<Unknown>,
    moved_to: Vec<PathBuf>,
    buffer: Box<[u8; BOUND]>,
}

impl Chains {
    /// No chains yet. A backing file whose directory is gone (a home that was moved) is looked for by its file
    /// name in `moved_to`.
    pub fn new(moved_to: Vec<PathBuf>) -> Self {
        Self {
            nodes: Vec::new(),
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            unknown: Vec::new(),
            moved_to,
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
        let unknown = |why: String| Unknown { path: path(), why };
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

    /// Calls `visit` for every file below an overlay, nearest first; returns how the chain ends.
    pub fn visit_below(&self, first: ChainLink, mut visit: impl FnMut(FileId)) -> ChainLink {
        let mut link = first;
        // Links point at nodes that were complete before, or to `Unknown`: there is no cycle among nodes.
        while let ChainLink::File(index) = link {
            let node = &self.nodes[index.0 as usize];
            visit(node.id);
            link = node.next;
        }
        link
    }

    /// Why a link is [`ChainLink::Unknown`].
    pub fn unknown(&self, index: UnknownIndex) -> &Unknown {
        &self.unknown[index.0 as usize]
    }

    fn give_up(&mut self, path: &Path, why: impl Into<String>) -> ChainLink {
        let index = UnknownIndex(self.unknown.len() as u32);
        self.unknown.push(Unknown { path: path.to_owned(), why: why.into() });
        ChainLink::Unknown(index)
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
        let path = holder.parent().unwrap_or(Path::new("/")).join(local);
        let link = self.resolve_path(&path, format, trail);
        if local.is_absolute() && self.by_name.len() < REMEMBERED_NAMES {
            self.by_name.insert(name.into(), (format, link));
        }
        link
    }

    fn resolve_path(&mut self, path: &Path, format: BackingFormat, trail: &mut Vec<FileId>) -> ChainLink {
        match self.resolve_existing(path, format, trail) {
            Some(link) => link,
            None => self.resolve_moved(path, format, trail),
        }
    }

    /// Looks for the file name of a vanished path where the home is now.
    fn resolve_moved(&mut self, gone: &Path, format: BackingFormat, trail: &mut Vec<FileId>) -> ChainLink {
        let Some(name) = gone.file_name() else { return ChainLink::Dangling };
        for candidate in self.moved_to.clone() {
            if let Some(link) = self.resolve_existing(&candidate.join(name), format, trail) {
                return link;
            }
        }
        ChainLink::Dangling
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
                (next, local_path(&name).is_none_or(Path::is_relative))
            }
        };
        // What a relative name means, and whether a chain is too deep or a cycle, depends on where one comes
        // from, so such a file is not shared between chains.
        if relative || matches!(next, ChainLink::Unknown(_)) {
            return Some(self.fresh_node(id, next));
        }
        Some(self.node(id, next))
    }

    /// Whether the remembered node was reached as a raw file, whose header (if it has one) nobody read.
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

/// Follows the one overlay at `path`.
pub fn follow_file(chains: &mut Chains, path: &Path) -> Result<Option<Followed>, Unknown> {
    let name = path.file_name().unwrap_or(OsStr::new("")).as_bytes();
    let name = std::ffi::CString::new(name)
        .map_err(|_| Unknown { path: path.to_owned(), why: "its name contains a NUL byte".to_owned() })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())
        .map_err(|errno| Unknown { path: parent.to_owned(), why: format!("it cannot be opened: {errno}") })?;
    chains.follow(directory.as_fd(), &name, &|| path.to_owned())
}

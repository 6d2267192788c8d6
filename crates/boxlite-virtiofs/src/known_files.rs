//! The files that the guest knows: which of them a descriptor holds, and where each of the others is found again.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io;

use virtiofsd::fuse::{Attr, ROOT_ID};

use crate::numbered::NumberedMap;

/// The facts about one file.
#[derive(Debug)]
struct KnownFile {
    /// `None` while no descriptor holds it.
    held: Option<HeldFile>,
    /// How often the guest has looked it up and not forgotten it.
    lookups: u64,
    handles: u64,
    /// A directory and a name in it, of which this is the file. `None` once that name was removed: only a descriptor finds it then.
    place: Option<(u64, CString)>,
    host_inode: u64,
    kind: u32,
    /// Whether it was asked for since it was last passed over.
    is_used: bool,
    /// Whether it was not found again. It never is then, lest it be known by two numbers.
    is_lost: bool,
}

/// The number of a held file in the filesystem below, and how often it was looked up there.
#[derive(Debug, Clone, Copy)]
struct HeldFile {
    number: u64,
    lookups: u64,
}

/// The files that the guest knows, by the numbers that it knows them by.
///
/// A file keeps its number for as long as the guest knows it, and no two numbers mean one file: what is charged is kept by number.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    files: NumberedMap<KnownFile>,
    held: NumberedMap<u64>,
    /// Those that no descriptor holds, by their inodes on the host.
    let_go: HashMap<u64, Vec<u64>>,
    places: HashMap<(u64, CString), u64>,
    /// In the order in which they are let go, once they were passed over unused.
    queue: VecDeque<u64>,
    handles: u64,
}

/// Returns the failure of a request for a file that is not found again.
pub(crate) fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

impl KnownFiles {
    /// Knows the root alone, which is always held.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
        let held = Some(HeldFile { number: ROOT_ID, lookups: 1 });
        self.held.insert(ROOT_ID, ROOT_ID);
        let root = KnownFile {
            held,
            lookups: 1,
            handles: 0,
            place: None,
            host_inode: 0,
            kind: libc::S_IFDIR,
            is_used: true,
            is_lost: false,
        };
        self.files.insert(ROOT_ID, root);
    }

    /// Descriptors that files and their handles take.
    pub(crate) fn descriptors(&self) -> u64 {
        self.held.len() as u64 + self.handles
    }

    /// The number below of `file`, where it is held; errors where the guest does not know it, or it was lost.
    pub(crate) fn number(&mut self, file: u64) -> io::Result<Option<u64>> {
        let known = self.files.get_mut(&file).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        if known.is_lost {
            return Err(stale());
        }
        known.is_used = true;
        Ok(known.held.map(|held| held.number))
    }

    /// The files to be found again, one after the other, to hold `file` at last.
    pub(crate) fn way_to(&self, file: u64) -> io::Result<Vec<u64>> {
        let (mut way, mut at) = (Vec::new(), file);
        while self.files.get(&at).ok_or_else(stale)?.held.is_none() {
            // Names that the host has exchanged meanwhile may lead in a circle.
            if way.len() > self.files.len() {
                return Err(stale());
            }
            way.push(at);
            (at, _) = self.place(at).ok_or_else(stale)?;
        }
        way.reverse();
        Ok(way)
    }

    /// Where `file` is found.
    pub(crate) fn place(&self, file: u64) -> Option<(u64, CString)> {
        self.files.get(&file)?.place.clone()
    }

    /// The file that was found at a place last.
    pub(crate) fn at(&self, directory: u64, name: &CStr) -> Option<u64> {
        self.places.get(&(directory, name.to_owned())).copied()
    }

    /// Whether a file is held as `number`.
    pub(crate) fn holds(&self, number: u64) -> bool {
        self.held.contains_key(&number)
    }

    /// Whether what was found for `file` can be it.
    pub(crate) fn can_be(&self, file: u64, number: u64, found: &Attr) -> bool {
        let same =
            |known: &KnownFile| known.host_inode == found.ino && known.kind == found.mode & libc::S_IFMT;
        self.files.get(&file).is_some_and(same) && !self.holds(number)
    }

    /// Notes that `file` was found again and is held as `number`.
    pub(crate) fn hold(&mut self, file: u64, number: u64) {
        let Some(known) = self.files.get_mut(&file) else { return };
        (known.held, known.is_used) = (Some(HeldFile { number, lookups: 1 }), true);
        let host_inode = known.host_inode;
        self.held.insert(number, file);
        self.enqueue(file);
        self.remove_let_go(host_inode, file);
    }

    /// Notes that `file` was not found again.
    pub(crate) fn lose(&mut self, file: u64) {
        let Some(known) = self.files.get_mut(&file) else { return };
        known.is_lost = true;
        let host_inode = known.host_inode;
        self.remove_let_go(host_inode, file);
        self.leave_place(file);
    }

    /// The files that may be the one with `host_inode`, if they were found again.
    pub(crate) fn let_go_with(&self, host_inode: u64) -> Vec<u64> {
        self.let_go.get(&host_inode).cloned().unwrap_or_default()
    }

    /// Notes that the guest was told of the file that is held as `number`, and of its place; returns the guest's number for it.
    pub(crate) fn looked_up(&mut self, number: u64, place: (u64, &CStr), found: &Attr) -> u64 {
        let file = *self.held.entry(number).or_insert(number);
        if !self.files.contains_key(&file) {
            self.enqueue(file);
        }
        let known = self.files.entry(file).or_insert_with(|| KnownFile {
            held: Some(HeldFile { number, lookups: 0 }),
            lookups: 0,
            handles: 0,
            place: None,
            host_inode: found.ino,
            kind: found.mode & libc::S_IFMT,
            is_used: true,
            is_lost: false,
        });
        known.lookups = known.lookups.saturating_add(1);
        known.is_used = true;
        if let Some(held) = &mut known.held {
            held.lookups += 1;
        }
        if file != ROOT_ID {
            self.take_place(file, (place.0, place.1.to_owned()));
        }
        file
    }

    /// Notes that the guest has forgotten `file` `count` times; returns what is to be forgotten below.
    pub(crate) fn forgotten(&mut self, file: u64, count: u64) -> Option<(u64, u64)> {
        let known = self.files.get_mut(&file).filter(|_| file != ROOT_ID)?;
        known.lookups = known.lookups.saturating_sub(count);
        self.remove_unknown(file)
    }

    /// Notes that the guest has a further handle of `file`.
    pub(crate) fn opened(&mut self, file: u64) {
        if let Some(known) = self.files.get_mut(&file) {
            known.handles += 1;
            self.handles += 1;
        }
    }

    /// Notes that a handle of `file` was closed; returns what is to be forgotten below.
    pub(crate) fn closed(&mut self, file: u64) -> Option<(u64, u64)> {
        let known = self.files.get_mut(&file).filter(|known| known.handles > 0)?;
        known.handles -= 1;
        self.handles -= 1;
        self.remove_unknown(file)
    }

    /// Notes that a name was removed, or now means another file.
    pub(crate) fn lost_name(&mut self, directory: u64, name: &CStr) {
        if let Some(file) = self.places.remove(&(directory, name.to_owned()))
            && let Some(known) = self.files.get_mut(&file)
        {
            known.place = None;
        }
    }

    /// Notes that what was found at one place is at another, and with `exchanged` the other way round as well.
    pub(crate) fn moved(&mut self, from: (u64, &CStr), to: (u64, &CStr), exchanged: bool) {
        let (moved, other) = (self.at(from.0, from.1), self.at(to.0, to.1));
        if moved.is_some() && moved == other {
            // Two names of one file: nothing moves then, or nothing that matters.
            return;
        }
        self.lost_name(from.0, from.1);
        self.lost_name(to.0, to.1);
        if let Some(file) = moved {
            self.take_place(file, (to.0, to.1.to_owned()));
        }
        if let Some(file) = other.filter(|_| exchanged) {
            self.take_place(file, (from.0, from.1.to_owned()));
        }
    }

    /// Lets go of up to `most` files that can be found again, of those first that were not asked for the longest, and of none of
    /// `kept`; returns what is to be forgotten below.
    pub(crate) fn let_go(&mut self, most: usize, kept: &[u64]) -> Vec<(u64, u64)> {
        let mut gone = Vec::new();
        // Twice round, since all may be marked as used the first time.
        for _ in 0..2 * self.queue.len() {
            if gone.len() == most {
                break;
            }
            let Some(file) = self.queue.pop_front() else { break };
            let Some(known) = self.files.get_mut(&file) else { continue };
            let Some(held) = known.held else { continue };
            if known.is_used || known.handles > 0 || known.place.is_none() || kept.contains(&file) {
                known.is_used = false;
                self.queue.push_back(file);
                continue;
            }
            known.held = None;
            self.held.remove(&held.number);
            self.let_go.entry(known.host_inode).or_default().push(file);
            gone.push((held.number, held.lookups));
        }
        gone
    }

    fn enqueue(&mut self, file: u64) {
        // Those that the guest has forgotten stay in it for a while.
        if self.queue.len() > 2 * self.held.len() + 64 {
            let Self { queue, files, .. } = self;
            queue.retain(|file| files.contains_key(file));
        }
        self.queue.push_back(file);
    }

    fn take_place(&mut self, file: u64, place: (u64, CString)) {
        let Some(known) = self.files.get_mut(&file) else { return };
        if known.place.as_ref() == Some(&place) {
            return;
        }
        self.leave_place(file);
        self.lost_name(place.0, &place.1);
        self.places.insert(place.clone(), file);
        if let Some(known) = self.files.get_mut(&file) {
            known.place = Some(place);
        }
    }

    fn leave_place(&mut self, file: u64) {
        if let Some(place) = self.files.get_mut(&file).and_then(|known| known.place.take()) {
            self.places.remove(&place);
        }
    }

    fn remove_unknown(&mut self, file: u64) -> Option<(u64, u64)> {
        let known = self.files.get(&file)?;
        if known.lookups > 0 || known.handles > 0 {
            return None;
        }
        self.leave_place(file);
        let known = self.files.remove(&file)?;
        self.remove_let_go(known.host_inode, file);
        let held = known.held?;
        self.held.remove(&held.number);
        Some((held.number, held.lookups))
    }

    fn remove_let_go(&mut self, host_inode: u64, file: u64) {
        if let Some(files) = self.let_go.get_mut(&host_inode) {
            files.retain(|&other| other != file);
            if files.is_empty() {
                self.let_go.remove(&host_inode);
            }
        }
    }
}

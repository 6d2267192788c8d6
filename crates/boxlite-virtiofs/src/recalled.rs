//! A folder of which the guest knows more files than this process may have open.
//!
//! virtiofsd's passthrough keeps a descriptor open for each file that the guest's kernel remembers, and kernels remember all that they
//! have seen until they are short of memory: a walk through a tree of more files than the limit of open files ended in errors. Here
//! files that nothing has open are let go when the limit is near, and looked up again by their names when the guest asks for them.
//!
//! # Limits
//! A file that the host, or another box, has renamed, replaced or removed while it was let go is not found again: what asks for it by
//! its number alone gets `ESTALE`, and a kernel then asks by its name. With as many handles as the limit allows, the next file gets
//! `ENFILE`.

mod requests;

use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtiofsd::filesystem::{Context, Entry, FileSystem, SerializableFileSystem};

use crate::known_files::{KnownFiles, stale};

/// With so many descriptors there is nothing to be spared: as many files as virtiofsd itself asks for.
const PLENTY: u64 = 900_000;

/// The part of the descriptors that is set free at once.
const BATCHES: u64 = 32;

/// A folder served by `F`, in which files are found again.
pub(crate) struct Recalled<F> {
    inner: F,
    /// `None` where there are descriptors for all that a guest can remember.
    known: Option<Mutex<KnownFiles>>,
    descriptors: u64,
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Recalled<F> {
    /// Has `inner` use fewer than `descriptors`, where that is few.
    pub(crate) fn new(inner: F, descriptors: u64) -> Self {
        let known = (descriptors < PLENTY).then(Mutex::default);
        Self { inner, known, descriptors }
    }

    fn known(&self) -> Option<MutexGuard<'_, KnownFiles>> {
        self.known.as_ref().map(|known| known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reset(&self) {
        if let Some(mut known) = self.known() {
            known.reset();
        }
    }

    /// The number below of the guest's `file`, which is found again if it was let go.
    fn number(&self, ctx: Context, file: u64) -> io::Result<u64> {
        match self.known() {
            Some(mut known) => self.recall(&mut known, ctx, file, &[file]),
            None => Ok(file),
        }
    }

    /// The numbers below of two files, both held.
    fn numbers(&self, ctx: Context, one: u64, other: u64) -> io::Result<(u64, u64)> {
        let Some(mut known) = self.known() else { return Ok((one, other)) };
        let kept = [one, other];
        Ok((self.recall(&mut known, ctx, one, &kept)?, self.recall(&mut known, ctx, other, &kept)?))
    }

    /// The numbers below of two directories, in the second of which `name` is about to be removed: what has it is held, as nothing
    /// finds it afterwards.
    fn numbers_before_removal(
        &self,
        ctx: Context,
        one: u64,
        other: u64,
        name: &CStr,
    ) -> io::Result<(u64, u64)> {
        let Some(mut known) = self.known() else { return Ok((one, other)) };
        let named = known.at(other, name);
        let kept = [one, other, named.unwrap_or(other)];
        if let Some(file) = named {
            let _ = self.recall(&mut known, ctx, file, &kept);
        }
        Ok((self.recall(&mut known, ctx, one, &kept)?, self.recall(&mut known, ctx, other, &kept)?))
    }

    fn recall(&self, known: &mut KnownFiles, ctx: Context, file: u64, kept: &[u64]) -> io::Result<u64> {
        if let Some(number) = known.number(file)? {
            return Ok(number);
        }
        let found = self.find_way(known, ctx, file, kept);
        if let Err(error) = &found
            && error.raw_os_error() == Some(libc::ESTALE)
        {
            known.lose(file);
        }
        found
    }

    /// Finds `file` and the directories above it that are let go.
    fn find_way(&self, known: &mut KnownFiles, ctx: Context, file: u64, kept: &[u64]) -> io::Result<u64> {
        let mut number = Err(stale());
        for step in known.way_to(file)? {
            number = Ok(self.find(known, ctx, step)?);
            self.make_room(known, ctx, &[&[step], kept].concat());
        }
        number
    }

    /// Finds `file`, whose directory is held.
    fn find(&self, known: &mut KnownFiles, ctx: Context, file: u64) -> io::Result<u64> {
        let (directory, name) = known.place(file).ok_or_else(stale)?;
        let directory = known.number(directory)?.ok_or_else(stale)?;
        let found = self.inner.lookup(ctx, directory, &name).map_err(|error| match error.raw_os_error() {
            // It is there, and can be found when there is something to hold it with.
            Some(libc::ENFILE | libc::EMFILE | libc::ENOMEM) => error,
            _ => stale(),
        })?;
        if !known.can_be(file, found.inode, &found.attr) {
            self.inner.forget(ctx, found.inode, 1);
            return Err(stale());
        }
        known.hold(file, found.inode);
        Ok(found.inode)
    }

    /// Gives the guest its own number of what was looked up below.
    fn tell(&self, ctx: Context, place: (u64, &CStr), mut entry: Entry) -> Entry {
        let Some(mut known) = self.known() else { return entry };
        // Which of those with this inode it is, if any, shows when they are found again.
        for file in known.let_go_with(entry.attr.ino) {
            if known.holds(entry.inode) {
                break;
            }
            if self.recall(&mut known, ctx, file, &[file]).is_err() {
                // If it was this one, it has another number from now on.
                known.lose(file);
            }
        }
        entry.inode = known.looked_up(entry.inode, place, &entry.attr);
        self.make_room(&mut known, ctx, &[entry.inode]);
        entry
    }

    fn make_room(&self, known: &mut KnownFiles, ctx: Context, kept: &[u64]) {
        let batch = self.descriptors / BATCHES + 1;
        if known.descriptors() + batch > self.descriptors {
            let gone = known.let_go(batch as usize, kept);
            if !gone.is_empty() {
                self.inner.batch_forget(ctx, gone);
            }
        }
    }

    fn count_handle(&self, ctx: Context, file: u64) {
        if let Some(mut known) = self.known() {
            known.opened(file);
            self.make_room(&mut known, ctx, &[file]);
        }
    }

    fn count_closed(&self, ctx: Context, file: u64) {
        if let Some((number, count)) = self.known().and_then(|mut known| known.closed(file)) {
            self.inner.forget(ctx, number, count);
        }
    }

    fn lost_name(&self, directory: u64, name: &CStr) {
        if let Some(mut known) = self.known() {
            known.lost_name(directory, name);
        }
    }
}

impl<F> SerializableFileSystem for Recalled<F> {}

#[cfg(test)]
#[path = "recalled_tests.rs"]
mod tests;

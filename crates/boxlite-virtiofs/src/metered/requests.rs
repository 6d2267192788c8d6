//! Each request of a guest's kernel, with what it can make grow and what it gives back.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, DirectoryIterator, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply,
    OpenOptions, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use super::{BLOCK, Full, MAX_COPY, Metered, allocated, covering, plain_create, plain_open};
use crate::headroom::Growth;

impl<F, D> FileSystem for Metered<F>
where
    F: FileSystem<Inode = u64, Handle = u64, DirIter = D>,
    D: DirectoryIterator,
{
    type Inode = u64;
    type Handle = u64;
    type DirIter = D;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.with_all_forgotten(|| self.inner.init(capable))
    }

    fn destroy(&self) {
        self.with_all_forgotten(|| self.inner.destroy());
    }

    fn lookup(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.inner.lookup(ctx, parent, name)
    }

    fn forget(&self, ctx: Context, inode: u64, count: u64) {
        self.forget_known(&mut self.state(), ctx, inode, count);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(u64, u64)>) {
        let mut state = self.state();
        for (inode, count) in requests {
            self.forget_known(&mut state, ctx, inode, count);
        }
    }

    fn getattr(&self, ctx: Context, inode: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        self.inner.getattr(ctx, inode, handle)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: u64,
        attr: SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        let mut state = self.state();
        if !valid.contains(SetattrValid::SIZE) || state.account.is_none() {
            drop(state);
            return self.inner.setattr(ctx, inode, attr, handle, valid);
        }
        let before = self.attributes(ctx, inode)?;
        let request = || self.inner.setattr(ctx, inode, attr, handle, valid);
        let done = self.with_shrinking(&mut state, ctx, inode, request);
        let grew = self.attributes(ctx, inode).is_ok_and(|now| allocated(&now) > allocated(&before));
        if grew && state.account.as_ref().is_some_and(|account| account.ledger.is_exceeded()) {
            // A filesystem without holes has filled the file; what it was before is the way back.
            let back = SetattrIn { size: before.size, ..attr };
            let request = || self.inner.setattr(ctx, inode, back, handle, SetattrValid::SIZE);
            self.with_shrinking(&mut state, ctx, inode, request)?;
            return Err(Full::Quota.into());
        }
        done
    }

    fn readlink(&self, ctx: Context, inode: u64) -> io::Result<Vec<u8>> {
        self.inner.readlink(ctx, inode)
    }

    fn symlink(
        &self,
        ctx: Context,
        linkname: &CStr,
        parent: u64,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        let request = || self.inner.symlink(ctx, linkname, parent, name, extensions);
        self.with_new_name(ctx, parent, request, |entry| Some(entry))
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        let request = || self.inner.mknod(ctx, parent, name, mode, rdev, umask, extensions);
        self.with_new_name(ctx, parent, request, |entry| Some(entry))
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        let request = || self.inner.mkdir(ctx, parent, name, mode, umask, extensions);
        self.with_new_name(ctx, parent, request, |entry| Some(entry))
    }

    fn unlink(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let request = || self.inner.unlink(ctx, parent, name);
        self.with_lost_name(&mut self.state(), ctx, (parent, name), request)
    }

    fn rmdir(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let request = || self.inner.rmdir(ctx, parent, name);
        self.with_lost_name(&mut self.state(), ctx, (parent, name), request)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: u64,
        oldname: &CStr,
        newdir: u64,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        if flags & libc::RENAME_WHITEOUT != 0 {
            // It would make a device node, which no box gets, and which is an inode more.
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut state = self.state();
        self.look_first(&mut state, ctx, newdir)?;
        if olddir != newdir && flags & libc::RENAME_EXCHANGE == 0 {
            self.admit_moved(&mut state, ctx, (newdir, newname))?;
        }
        let request = || self.inner.rename(ctx, olddir, oldname, newdir, newname, flags);
        self.with_lost_name(&mut state, ctx, (newdir, newname), request)?;
        self.settle(&mut state, ctx, newdir);
        Ok(())
    }

    fn link(&self, ctx: Context, inode: u64, newparent: u64, newname: &CStr) -> io::Result<Entry> {
        let request = || self.inner.link(ctx, inode, newparent, newname);
        self.with_new_name(ctx, newparent, request, |_| None)
    }

    fn open(
        &self,
        ctx: Context,
        inode: u64,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        let request = || self.inner.open(ctx, inode, kill_priv, plain_open(flags));
        let opened = if flags & libc::O_TRUNC as u32 == 0 {
            request()?
        } else {
            self.with_shrinking(&mut self.state(), ctx, inode, request)?
        };
        self.count_handle(inode);
        Ok(opened)
    }

    fn create(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions)> {
        const EXCLUSIVE: u32 = libc::O_EXCL as u32;
        let flags = plain_create(flags);
        // A file that is there already is opened instead, and costs no inode.
        let exclusive = flags | EXCLUSIVE;
        let request = || self.inner.create(ctx, parent, name, mode, kill_priv, exclusive, umask, extensions);
        match self.with_new_name(ctx, parent, request, |(entry, _, _)| Some(entry)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && flags & EXCLUSIVE == 0 => {}
            made => {
                let made = made?;
                self.count_handle(made.0.inode);
                return Ok(made);
            }
        }
        let entry = self.inner.lookup(ctx, parent, name)?;
        let opened = self.open(ctx, entry.inode, kill_priv, flags);
        let (handle, options) = opened.inspect_err(|_| self.forget(ctx, entry.inode, 1))?;
        Ok((entry, handle, options))
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.inner.read(ctx, inode, handle, w, size, offset, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        _: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let mut state = self.state();
        self.look_first(&mut state, ctx, inode)?;
        let mut before = None;
        // Where it appends, the host knows the offset better: there it can touch a block more.
        let bytes = covering(offset, size.into()) + BLOCK;
        if let Err(full) = self.admit(&mut state, ctx, inode, Growth::Bytes(covering(offset, size.into()))) {
            let attributes = self.attributes(ctx, inode)?;
            // The host then writes at the end of the file, wherever the guest thinks that is.
            let appends = !delayed_write && flags & libc::O_APPEND as u32 != 0;
            let offset = if appends { attributes.size } else { offset };
            if !self.adds_nothing(&state, full, (ctx, inode, handle), (offset, size.into())) {
                return Err(full.into());
            }
            before = Some(allocated(&attributes));
        }
        let written = self.inner.write(
            ctx,
            inode,
            handle,
            r,
            size,
            offset,
            lock_owner,
            delayed_write,
            // A write takes set-user-id away by itself, as the right to keep it was given up: nothing is to be looked up.
            false,
            flags,
        );
        if let Some(before) = before
            && self.attributes(ctx, inode).is_ok_and(|found| allocated(&found) > before)
        {
            state.holes_are_hidden = true;
        }
        match before {
            None => self.grew(&mut state, ctx, inode, bytes),
            Some(_) => self.settle(&mut state, ctx, inode),
        }
        written
    }

    fn flush(&self, ctx: Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.inner.flush(ctx, inode, handle, lock_owner)
    }

    fn fsync(&self, ctx: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsync(ctx, inode, datasync, handle)
    }

    fn fallocate(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let mut state = self.state();
        let request = || self.inner.fallocate(ctx, inode, handle, mode, offset, length);
        let frees = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_COLLAPSE_RANGE) as u32;
        if mode & frees != 0 {
            return self.with_shrinking(&mut state, ctx, inode, request);
        }
        self.look_first(&mut state, ctx, inode)?;
        let growth = Growth::Bytes(covering(offset, length));
        self.admit(&mut state, ctx, inode, growth)?;
        let done = request();
        self.settle(&mut state, ctx, inode);
        done
    }

    fn release(
        &self,
        ctx: Context,
        inode: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.inner.release(ctx, inode, flags, handle, flush, flock_release, lock_owner)?;
        let mut state = self.state();
        if state.account.as_ref().is_some_and(|account| account.knows(inode) && !account.is_settled(inode)) {
            // A filesystem may give back now what it had set aside for a file that grows.
            self.settle(&mut state, ctx, inode);
        }
        self.count_closed(&mut state, ctx, inode);
        Ok(())
    }

    fn statfs(&self, ctx: Context, inode: u64) -> io::Result<libc::statvfs64> {
        let mut found = self.inner.statfs(ctx, inode)?;
        let state = self.state();
        let unit = found.f_frsize.max(1);
        let above_floor = found.f_bavail.saturating_sub(state.headroom.floor().div_ceil(unit));
        let Some(account) = &state.account else {
            found.f_bavail = above_floor;
            return Ok(found);
        };
        let available = above_floor.min(account.ledger.room() / unit);
        let used = u64::try_from(account.ledger.used()).unwrap_or(0) / unit;
        found.f_blocks = available.saturating_add(used);
        (found.f_bfree, found.f_bavail) = (available, available);
        Ok(found)
    }

    fn setxattr(
        &self,
        ctx: Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra_flags: SetxattrFlags,
    ) -> io::Result<()> {
        let mut state = self.state();
        self.look_first(&mut state, ctx, inode)?;
        let growth = Growth::Bytes(covering(0, value.len() as u64) + BLOCK);
        self.admit(&mut state, ctx, inode, growth)?;
        let request = || self.inner.setxattr(ctx, inode, name, value, flags, extra_flags);
        self.with_shrinking(&mut state, ctx, inode, request)
    }

    fn getxattr(&self, ctx: Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.inner.getxattr(ctx, inode, name, size)
    }

    fn listxattr(&self, ctx: Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.inner.listxattr(ctx, inode, size)
    }

    fn removexattr(&self, ctx: Context, inode: u64, name: &CStr) -> io::Result<()> {
        let request = || self.inner.removexattr(ctx, inode, name);
        self.with_shrinking(&mut self.state(), ctx, inode, request)
    }

    fn opendir(&self, ctx: Context, inode: u64, flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        let opened = self.inner.opendir(ctx, inode, plain_open(flags))?;
        self.count_handle(inode);
        Ok(opened)
    }

    fn readdir(&self, ctx: Context, inode: u64, handle: u64, size: u32, offset: u64) -> io::Result<D> {
        self.inner.readdir(ctx, inode, handle, size, offset)
    }

    fn fsyncdir(&self, ctx: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsyncdir(ctx, inode, datasync, handle)
    }

    fn releasedir(&self, ctx: Context, inode: u64, flags: u32, handle: u64) -> io::Result<()> {
        self.inner.releasedir(ctx, inode, flags, handle)?;
        self.count_closed(&mut self.state(), ctx, inode);
        Ok(())
    }

    fn access(&self, ctx: Context, inode: u64, mask: u32) -> io::Result<()> {
        self.inner.access(ctx, inode, mask)
    }

    fn lseek(&self, ctx: Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        self.inner.lseek(ctx, inode, handle, offset, whence)
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        inode_in: u64,
        handle_in: u64,
        offset_in: u64,
        inode_out: u64,
        handle_out: u64,
        offset_out: u64,
        len: u64,
        flags: u64,
    ) -> io::Result<usize> {
        let mut state = self.state();
        self.look_first(&mut state, ctx, inode_out)?;
        let source = self.attributes(ctx, inode_in)?;
        let mut len = len.min(MAX_COPY).min(source.size.saturating_sub(offset_in));
        if let Some(account) = &state.account {
            let room = account.ledger.room();
            // A shorter copy is a valid answer, and the next one meets the limit.
            if room > 2 * BLOCK {
                len = len.min(room - 2 * BLOCK);
            }
        }
        let growth = Growth::Bytes(covering(offset_out, len));
        self.admit(&mut state, ctx, inode_out, growth)?;
        let copied = self.inner.copyfilerange(
            ctx, inode_in, handle_in, offset_in, inode_out, handle_out, offset_out, len, flags,
        );
        self.settle(&mut state, ctx, inode_out);
        copied
    }

    fn syncfs(&self, ctx: Context, inode: u64) -> io::Result<()> {
        self.inner.syncfs(ctx, inode)
    }
}

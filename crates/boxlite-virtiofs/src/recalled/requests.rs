//! Each request, with the numbers that the filesystem below has for its files.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, DirectoryIterator, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply,
    OpenOptions, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use super::Recalled;

impl<F, D> FileSystem for Recalled<F>
where
    F: FileSystem<Inode = u64, Handle = u64, DirIter = D>,
    D: DirectoryIterator,
{
    type Inode = u64;
    type Handle = u64;
    type DirIter = D;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.reset();
        self.inner.init(capable)
    }

    fn destroy(&self) {
        self.reset();
        self.inner.destroy();
    }

    fn lookup(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        let entry = self.inner.lookup(ctx, self.number(ctx, parent)?, name)?;
        Ok(self.tell(ctx, (parent, name), entry))
    }

    fn forget(&self, ctx: Context, inode: u64, count: u64) {
        self.batch_forget(ctx, vec![(inode, count)]);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(u64, u64)>) {
        let gone = match self.known() {
            Some(mut known) => {
                requests.into_iter().filter_map(|(inode, count)| known.forgotten(inode, count)).collect()
            }
            None => requests,
        };
        self.inner.batch_forget(ctx, gone);
    }

    fn getattr(&self, ctx: Context, inode: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        self.inner.getattr(ctx, self.number(ctx, inode)?, handle)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: u64,
        attr: SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        self.inner.setattr(ctx, self.number(ctx, inode)?, attr, handle, valid)
    }

    fn readlink(&self, ctx: Context, inode: u64) -> io::Result<Vec<u8>> {
        self.inner.readlink(ctx, self.number(ctx, inode)?)
    }

    fn symlink(
        &self,
        ctx: Context,
        linkname: &CStr,
        parent: u64,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        let entry = self.inner.symlink(ctx, linkname, self.number(ctx, parent)?, name, extensions)?;
        Ok(self.tell(ctx, (parent, name), entry))
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
        let number = self.number(ctx, parent)?;
        let entry = self.inner.mknod(ctx, number, name, mode, rdev, umask, extensions)?;
        Ok(self.tell(ctx, (parent, name), entry))
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
        let entry = self.inner.mkdir(ctx, self.number(ctx, parent)?, name, mode, umask, extensions)?;
        Ok(self.tell(ctx, (parent, name), entry))
    }

    fn unlink(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let (_, number) = self.numbers_before_removal(ctx, parent, parent, name)?;
        self.inner.unlink(ctx, number, name)?;
        self.lost_name(parent, name);
        Ok(())
    }

    fn rmdir(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let (_, number) = self.numbers_before_removal(ctx, parent, parent, name)?;
        self.inner.rmdir(ctx, number, name)?;
        self.lost_name(parent, name);
        Ok(())
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
        let (from, to) = self.numbers_before_removal(ctx, olddir, newdir, newname)?;
        self.inner.rename(ctx, from, oldname, to, newname, flags)?;
        if let Some(mut known) = self.known() {
            known.moved((olddir, oldname), (newdir, newname), flags & libc::RENAME_EXCHANGE != 0);
        }
        Ok(())
    }

    fn link(&self, ctx: Context, inode: u64, newparent: u64, newname: &CStr) -> io::Result<Entry> {
        let (number, parent) = self.numbers(ctx, inode, newparent)?;
        let entry = self.inner.link(ctx, number, parent, newname)?;
        Ok(self.tell(ctx, (newparent, newname), entry))
    }

    fn open(
        &self,
        ctx: Context,
        inode: u64,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        let opened = self.inner.open(ctx, self.number(ctx, inode)?, kill_priv, flags)?;
        self.count_handle(ctx, inode);
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
        let number = self.number(ctx, parent)?;
        let made = self.inner.create(ctx, number, name, mode, kill_priv, flags, umask, extensions)?;
        let entry = self.tell(ctx, (parent, name), made.0);
        self.count_handle(ctx, entry.inode);
        Ok((entry, made.1, made.2))
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
        self.inner.read(ctx, self.number(ctx, inode)?, handle, w, size, offset, lock_owner, flags)
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
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let number = self.number(ctx, inode)?;
        self.inner.write(ctx, number, handle, r, size, offset, lock_owner, delayed_write, kill_priv, flags)
    }

    fn flush(&self, ctx: Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.inner.flush(ctx, self.number(ctx, inode)?, handle, lock_owner)
    }

    fn fsync(&self, ctx: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsync(ctx, self.number(ctx, inode)?, datasync, handle)
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
        self.inner.fallocate(ctx, self.number(ctx, inode)?, handle, mode, offset, length)
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
        let number = self.number(ctx, inode)?;
        self.inner.release(ctx, number, flags, handle, flush, flock_release, lock_owner)?;
        self.count_closed(ctx, inode);
        Ok(())
    }

    fn statfs(&self, ctx: Context, inode: u64) -> io::Result<libc::statvfs64> {
        self.inner.statfs(ctx, self.number(ctx, inode)?)
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
        self.inner.setxattr(ctx, self.number(ctx, inode)?, name, value, flags, extra_flags)
    }

    fn getxattr(&self, ctx: Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.inner.getxattr(ctx, self.number(ctx, inode)?, name, size)
    }

    fn listxattr(&self, ctx: Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.inner.listxattr(ctx, self.number(ctx, inode)?, size)
    }

    fn removexattr(&self, ctx: Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.inner.removexattr(ctx, self.number(ctx, inode)?, name)
    }

    fn opendir(&self, ctx: Context, inode: u64, flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        let opened = self.inner.opendir(ctx, self.number(ctx, inode)?, flags)?;
        self.count_handle(ctx, inode);
        Ok(opened)
    }

    fn readdir(&self, ctx: Context, inode: u64, handle: u64, size: u32, offset: u64) -> io::Result<D> {
        self.inner.readdir(ctx, self.number(ctx, inode)?, handle, size, offset)
    }

    fn fsyncdir(&self, ctx: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.inner.fsyncdir(ctx, self.number(ctx, inode)?, datasync, handle)
    }

    fn releasedir(&self, ctx: Context, inode: u64, flags: u32, handle: u64) -> io::Result<()> {
        self.inner.releasedir(ctx, self.number(ctx, inode)?, flags, handle)?;
        self.count_closed(ctx, inode);
        Ok(())
    }

    fn access(&self, ctx: Context, inode: u64, mask: u32) -> io::Result<()> {
        self.inner.access(ctx, self.number(ctx, inode)?, mask)
    }

    fn lseek(&self, ctx: Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        self.inner.lseek(ctx, self.number(ctx, inode)?, handle, offset, whence)
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
        let (from, to) = self.numbers(ctx, inode_in, inode_out)?;
        self.inner.copyfilerange(ctx, from, handle_in, offset_in, to, handle_out, offset_out, len, flags)
    }

    fn syncfs(&self, ctx: Context, inode: u64) -> io::Result<()> {
        self.inner.syncfs(ctx, self.number(ctx, inode)?)
    }
}

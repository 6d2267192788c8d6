//! Against a real folder, by what a guest's kernel asks and by what only a hostile one does.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use virtiofsd::filesystem::{
    Extensions, FsOptions, GetxattrReply, ListxattrReply, SetattrValid, SetxattrFlags, ZeroCopyReader,
};
use virtiofsd::fuse::ROOT_ID;
use virtiofsd::passthrough::{CachePolicy, Config, InodeFileHandlesMode, PassthroughFs};
use virtiofsd::{fuse, oslib};

use super::*;
use crate::recalled::Recalled;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The bytes that a guest writes.
struct Bytes;

impl ZeroCopyReader for Bytes {
    fn write_to_file_at(
        &mut self,
        file: &File,
        count: usize,
        offset: u64,
        _: Option<oslib::WritevFlags>,
    ) -> io::Result<usize> {
        file.write_at(&vec![7; count], offset)
    }
}

struct Mount {
    fs: Metered<Recalled<PassthroughFs>>,
    folder: PathBuf,
}

/// A folder on a disk, where a file of 0 bytes takes no block.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn context() -> Context {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Context { uid: uid.into(), gid: gid.into(), pid: 1 }
}

impl Mount {
    fn of(folder: &Path, limit: Option<u64>, floor: u64) -> Self {
        Self::keeping(folder, limit, floor, None, |_| Total::AtLeast(0))
    }

    fn keeping(
        folder: &Path,
        limit: Option<u64>,
        floor: u64,
        kept: Option<File>,
        recount: fn(u64) -> Total,
    ) -> Self {
        let config = Config {
            root_dir: folder.to_str().unwrap().into(),
            inode_file_handles: InodeFileHandlesMode::Never,
            cache_policy: CachePolicy::Auto,
            guest_fd_limit: 1000,
            xattr: true,
            xattrmap: Some(crate::user_attributes().unwrap()),
            ..Config::default()
        };
        let ledger = limit.map(|limit| Ledger::open(limit, kept, || None).unwrap());
        // A file that nothing has open is let go at once, and found again.
        let inner = Recalled::new(PassthroughFs::new(config).unwrap(), 4);
        let fs = Metered::new(inner, ledger, Headroom::new(floor, 0), recount);
        fs.init(FsOptions::empty()).unwrap();
        Self { fs, folder: folder.to_owned() }
    }

    fn used(&self) -> i64 {
        let mut state = self.fs.state();
        self.fs.settle_all(&mut state, context());
        state.account.as_ref().unwrap().ledger.used()
    }

    fn create(&self, name: &str) -> io::Result<(u64, u64)> {
        let name = CString::new(name).unwrap();
        let flags = (libc::O_RDWR | libc::O_CREAT) as u32;
        let made =
            self.fs.create(context(), ROOT_ID, &name, 0o644, false, flags, 0, Extensions::default())?;
        Ok((made.0.inode, made.1.unwrap()))
    }

    fn write(&self, (inode, handle): (u64, u64), offset: u64, size: u64) -> io::Result<usize> {
        let size = u32::try_from(size).unwrap();
        self.fs.write(context(), inode, handle, Bytes, size, offset, None, false, false, 0)
    }

    fn truncate(&self, (inode, handle): (u64, u64), size: u64) -> io::Result<()> {
        let attr = fuse::SetattrIn { size, ..fuse::SetattrIn::default() };
        self.fs.setattr(context(), inode, attr, Some(handle), SetattrValid::SIZE).map(drop)
    }

    fn fallocate(&self, (inode, handle): (u64, u64), mode: i32, offset: u64, size: u64) -> io::Result<()> {
        self.fs.fallocate(context(), inode, handle, mode as u32, offset, size)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.fs.unlink(context(), ROOT_ID, &CString::new(name).unwrap())
    }

    fn release(&self, (inode, handle): (u64, u64)) {
        self.fs.release(context(), inode, 0, handle, false, false, None).unwrap();
    }

    /// Does as a guest's kernel with a file that it has created once, when nothing needs it.
    fn close(&self, file: (u64, u64)) {
        self.release(file);
        self.fs.forget(context(), file.0, 1);
    }

    /// Bytes that the folder takes, an inode as the ledger counts it.
    fn takes(&self) -> i64 {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let files: u64 = entries.map(|e| e.unwrap().metadata().unwrap().blocks() * 512 + INODE_BYTES).sum();
        files as i64
    }
}

#[track_caller]
fn full<T>(result: io::Result<T>) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
}

#[test]
fn what_is_written_is_charged_and_refused_at_the_limit_and_goes_on_once_something_is_deleted() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let (one, two) = (mount.create("one").unwrap(), mount.create("two").unwrap());
    assert_eq!(mount.write(one, 0, 512 * KIB).unwrap() as u64, 512 * KIB);
    mount.write(two, 0, 400 * KIB).unwrap();
    full(mount.write(two, 400 * KIB, 400 * KIB));
    assert_eq!(mount.used(), mount.takes());
    // To open a file may be to empty it.
    let flags = (libc::O_RDWR | libc::O_TRUNC) as u32;
    let (handle, _) = mount.fs.open(context(), one.0, false, flags).unwrap();
    assert_eq!(mount.used(), mount.takes());
    mount.write((one.0, handle.unwrap()), 0, 512 * KIB).unwrap();
    mount.release((one.0, handle.unwrap()));
    full(mount.write(two, 400 * KIB, 400 * KIB));
    // Present bytes can be written over.
    mount.write(two, 0, 400 * KIB).unwrap();
    mount.write(one, 0, 512 * KIB).unwrap();
    full(mount.fallocate(two, 0, 400 * KIB, 200 * KIB));
    mount.close(one);
    mount.unlink("one").unwrap();
    mount.write(two, 400 * KIB, 400 * KIB).unwrap();
    assert_eq!(mount.used(), mount.takes());
}

/// Mutations tried: `unlink` credited at once; `forgotten` without the look at handles; no credit for what is truncated.
#[test]
fn a_deleted_file_counts_for_as_long_as_something_keeps_it() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    for attempt in 0..4 {
        let file = mount.create("file").unwrap();
        mount.write(file, 0, 768 * KIB).unwrap();
        mount.unlink("file").unwrap();
        let other = mount.create("other").unwrap();
        full(mount.write(other, 0, 512 * KIB));
        // A hostile kernel forgets what it has open.
        mount.fs.forget(context(), file.0, 1);
        full(mount.write(other, 0, 512 * KIB));
        mount.release(file);
        mount.write(other, 0, 512 * KIB).unwrap();
        mount.truncate(other, 4 * KIB).unwrap();
        mount.close(other);
        mount.unlink("other").unwrap();
        assert_eq!(mount.used(), mount.takes(), "attempt {attempt}");
    }
}

/// A file that is looked up by its name must be the one that is open, although a hostile kernel has forgotten that. Mutation
/// tried: open files are forgotten at once, by which the folder grows without bound.
#[test]
fn a_file_that_is_forgotten_and_then_deleted_counts_while_it_is_open() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let file = mount.create("file").unwrap();
    mount.write(file, 0, 768 * KIB).unwrap();
    mount.fs.forget(context(), file.0, u64::MAX);
    mount.unlink("file").unwrap();
    let other = mount.create("other").unwrap();
    full(mount.write(other, 0, 512 * KIB));
    mount.release(file);
    mount.write(other, 0, 512 * KIB).unwrap();
    assert_eq!(mount.used(), mount.takes());
}

/// Mutation tried: a recount that looks at no open file.
#[test]
fn an_open_file_that_another_box_deleted_still_counts() {
    let scratch = folder();
    let one = Mount::keeping(scratch.path(), Some(MIB), 0, None, |_| Total::Known(0));
    let two = Mount::of(scratch.path(), Some(MIB), 0);
    let file = one.create("file").unwrap();
    one.write(file, 0, 768 * KIB).unwrap();
    two.unlink("file").unwrap();
    let other = one.create("other").unwrap();
    full(one.write(other, 0, 512 * KIB));
    one.close(file);
    one.write(other, 0, 512 * KIB).unwrap();
}

/// Mutation tried: credit without a bound, by which each round gives the second box as much room again.
#[test]
fn two_boxes_gain_no_room_by_deleting_what_the_other_wrote() {
    let scratch = folder();
    std::fs::write(scratch.path().join("before"), vec![1; 100 << 10]).unwrap();
    let count = |_| Total::Known(100 << 10);
    let two = Mount::keeping(scratch.path(), Some(MIB), 0, None, count);
    for round in 0..6 {
        let one = Mount::of(scratch.path(), Some(MIB), 0);
        let file = one.create("file").unwrap();
        one.write(file, 0, 768 * KIB).unwrap();
        one.close(file);
        two.unlink("file").unwrap();
        assert!(two.used() >= -(900 << 10), "{round}: {}", two.used());
    }
    // A file that was there before is credited, once.
    two.unlink("before").unwrap();
    assert!((-(900 << 10)..-(700 << 10)).contains(&two.used()), "{}", two.used());
}

/// Mutations tried: names are moved without a look at the room; whiteouts are made.
#[test]
fn names_that_are_moved_take_no_more_than_is_left() {
    const LIMIT: u64 = 96 * KIB;
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(LIMIT), 0);
    let name = |text: &str| CString::new(text).unwrap();
    let mkdir = |text: &str| {
        mount.fs.mkdir(context(), ROOT_ID, &name(text), 0o755, 0, Extensions::default()).unwrap().inode
    };
    let directories: Vec<u64> = (0..6).map(|n| mkdir(&n.to_string())).collect();
    let names: Vec<CString> = (0..40).map(|n| name(&format!("{n:0250}"))).collect();
    for name in &names {
        mount.close(mount.create(name.to_str().unwrap()).unwrap());
    }
    let whiteout = mount.fs.rename(context(), ROOT_ID, &names[0], ROOT_ID, c"moved", libc::RENAME_WHITEOUT);
    assert_eq!(whiteout.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    let (mut from, mut refused) = (ROOT_ID, false);
    for &to in &directories {
        for name in &names {
            match mount.fs.rename(context(), from, name, to, name, 0) {
                Ok(()) => {}
                Err(error) => refused |= error.raw_os_error() == Some(libc::ENOSPC),
            }
        }
        from = to;
    }
    assert!(refused && mount.used() <= (LIMIT + 2 * BLOCK) as i64, "{refused} {}", mount.used());
    // A name that takes another's place, or stays in its directory, goes on.
    let held = names.iter().find(|name| mount.fs.lookup(context(), from, name).is_ok());
    let other = directories[..5].iter().find_map(|&directory| {
        names
            .iter()
            .find(|name| mount.fs.lookup(context(), directory, name).is_ok())
            .map(|name| (directory, name))
    });
    let (directory, name) = other.unwrap();
    mount.fs.rename(context(), directory, name, directory, c"renamed", 0).unwrap();
    if let Some(held) = held {
        mount.fs.rename(context(), directory, c"renamed", from, held, 0).unwrap();
    }
}

/// Mutations tried: attributes set without a look at the room; all names let through.
#[test]
fn attributes_of_users_pass_and_count() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let (inode, handle) = mount.create("file").unwrap();
    let none = SetxattrFlags::empty();
    let set = |name: &CStr, value: &[u8]| mount.fs.setxattr(context(), inode, name, value, 0, none);
    // More than fits beside the inode of ext4.
    set(c"user.note", &[7; 3000]).unwrap();
    assert_eq!(mount.used(), mount.takes());
    let Ok(GetxattrReply::Value(value)) = mount.fs.getxattr(context(), inode, c"user.note", 4096) else {
        panic!()
    };
    assert_eq!(value, [7; 3000]);
    for name in [c"security.capability", c"trusted.x", c"system.posix_acl_access", c"security.selinux"] {
        assert_eq!(set(name, b"x").unwrap_err().raw_os_error(), Some(libc::ENOTSUP), "{name:?}");
        let got = mount.fs.getxattr(context(), inode, name, 64).err().unwrap();
        assert_eq!(got.raw_os_error(), Some(libc::ENOTSUP), "{name:?}");
    }
    let Ok(ListxattrReply::Names(names)) = mount.fs.listxattr(context(), inode, 4096) else { panic!() };
    assert_eq!(names, b"user.note\0");
    mount.fs.removexattr(context(), inode, c"user.note").unwrap();
    assert_eq!(mount.used(), mount.takes());
    while mount.write((inode, handle), mount.used() as u64, 4096).is_ok() {}
    full(set(c"user.note", &[7; 3000]));
}

/// Mutation tried: every unlinked name credited, whether it is the last or not.
#[test]
fn links_renames_and_holes_count_for_what_they_take() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let file = mount.create("file").unwrap();
    mount.write(file, 0, 256 * KIB).unwrap();
    let name = |text: &str| CString::new(text).unwrap();
    mount.fs.link(context(), file.0, ROOT_ID, &name("second")).unwrap();
    mount.unlink("second").unwrap();
    mount.fs.rename(context(), ROOT_ID, &name("file"), ROOT_ID, &name("moved"), 0).unwrap();
    assert_eq!(mount.used(), mount.takes());
    let linked = mount.create("linked").unwrap();
    mount.write(linked, 0, 64 * KIB).unwrap();
    mount.fs.link(context(), linked.0, ROOT_ID, &name("again")).unwrap();
    mount.unlink("again").unwrap();
    mount.release(linked);
    mount.fs.forget(context(), linked.0, u64::MAX);
    assert_eq!(mount.used(), mount.takes());
    mount.unlink("linked").unwrap();
    assert_eq!(mount.used(), mount.takes());
    // A hole takes nothing until it is filled.
    mount.truncate(file, 64 * MIB).unwrap();
    assert_eq!(mount.used(), mount.takes());
    mount.write(file, 32 * MIB, 512 * KIB).unwrap();
    full(mount.write(file, 48 * MIB, 512 * KIB));
    mount
        .fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 32 * MIB, 512 * KIB)
        .unwrap();
    mount.write(file, 48 * MIB, 512 * KIB).unwrap();
    let other = mount.create("other").unwrap();
    mount.close(file);
    // A renamed file takes the place of another, which is gone then.
    mount.fs.rename(context(), ROOT_ID, &name("other"), ROOT_ID, &name("moved"), 0).unwrap();
    mount.fs.forget(context(), file.0, u64::MAX);
    mount.write(other, 0, 900 * KIB).unwrap();
    assert_eq!(mount.used(), mount.takes());
}

/// Mutation tried: flags passed on as they come, with which the file grows without bound.
#[test]
fn a_file_without_a_name_cannot_be_made() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let flags = (libc::O_TMPFILE | libc::O_RDWR) as u32;
    if let Ok((Some(handle), _)) = mount.fs.open(context(), ROOT_ID, false, flags) {
        assert!(mount.write((ROOT_ID, handle), 0, MIB).is_err());
    }
    if let Ok((Some(handle), _)) = mount.fs.opendir(context(), ROOT_ID, flags) {
        assert!(mount.write((ROOT_ID, handle), 0, MIB).is_err());
    }
    assert!(mount.fs.tmpfile().is_err());
}

#[test]
fn what_was_allocated_in_advance_can_be_written_when_all_else_is_full() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let file = mount.create("file").unwrap();
    mount.fallocate(file, 0, 0, 960 * KIB).unwrap();
    full(mount.create("more").and_then(|more| mount.write(more, 0, 200 * KIB)));
    mount.write(file, 0, 960 * KIB).unwrap();
    // The end of the file is in a block that it has already.
    let short = mount.create("short").unwrap();
    mount.write(short, 0, 10).unwrap();
    while mount.write(file, 960 * KIB + mount.used() as u64, 4096).is_ok() {}
    mount.write(short, 10, 10).unwrap();
}

/// Blocks set aside beyond the end of a file must not pay for its holes. Mutation tried: without the look at whether
/// the limit is exceeded, all of them are filled.
#[test]
fn blocks_beyond_the_end_pay_for_no_hole() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let file = mount.create("file").unwrap();
    mount.truncate(file, 768 * KIB).unwrap();
    mount.fallocate(file, libc::FALLOC_FL_KEEP_SIZE, 768 * KIB, 900 * KIB).unwrap();
    let written = (0..12u64).filter(|n| mount.write(file, n * 64 * KIB, 64 * KIB).is_ok()).count();
    assert!((1..4).contains(&written), "{written}");
    assert_eq!(mount.used(), mount.takes());
}

#[test]
fn names_are_charged_until_they_do_not_fit() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(64 * KIB), 0);
    let made = (0..1000).take_while(|n| mount.create(&format!("file{n}")).is_ok()).count();
    assert!((60..130).contains(&made), "{made}");
    full(mount.fs.mkdir(context(), ROOT_ID, c"directory", 0o755, 0, Extensions::default()));
    full(mount.fs.symlink(context(), c"to", ROOT_ID, c"link", Extensions::default()));
}

/// Mutation tried: no look at the floor.
#[test]
fn nothing_grows_below_the_hosts_floor_and_all_else_goes_on() {
    let scratch = folder();
    let unbounded = Mount::of(scratch.path(), None, 0);
    let file = unbounded.create("file").unwrap();
    unbounded.write(file, 0, 64 * KIB).unwrap();
    let free = unbounded.fs.statfs(context(), ROOT_ID).unwrap();
    assert!(free.f_bavail > 0);

    let mount = Mount::of(scratch.path(), None, u64::MAX / 2);
    let entry = mount.fs.lookup(context(), ROOT_ID, c"file").unwrap();
    let (handle, _) = mount.fs.open(context(), entry.inode, false, libc::O_RDWR as u32).unwrap();
    let file = (entry.inode, handle.unwrap());
    mount.write(file, 0, 64 * KIB).unwrap();
    full(mount.write(file, 64 * KIB, 1 + 4 * KIB));
    full(mount.fallocate(file, 0, MIB, MIB));
    full(mount.create("other"));
    full(mount.fs.mkdir(context(), ROOT_ID, c"directory", 0o755, 0, Extensions::default()));
    assert_eq!(mount.fs.statfs(context(), ROOT_ID).unwrap().f_bavail, 0);
    mount.unlink("file").unwrap();
}

#[test]
fn df_shows_what_may_be_used() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(64 * MIB), 0);
    let file = mount.create("file").unwrap();
    mount.write(file, 0, 16 * MIB).unwrap();
    let found = mount.fs.statfs(context(), ROOT_ID).unwrap();
    let (total, free) = (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize);
    assert!((63 * MIB..=64 * MIB).contains(&total), "{total}");
    assert!((47 * MIB..=48 * MIB).contains(&free) && found.f_bfree == found.f_bavail, "{free}");
}

/// Mutation tried: a ledger that is not read begins at 0, and a restart doubles what fits.
#[test]
fn a_restart_goes_on_with_what_was_used_and_sees_what_the_host_deleted() {
    let scratch = folder();
    let kept = tempfile::tempfile().unwrap();
    let again = || Some(kept.try_clone().unwrap());
    let mount = Mount::keeping(scratch.path(), Some(MIB), 0, again(), |_| Total::AtLeast(0));
    let (stays, open) = (mount.create("stays").unwrap(), mount.create("open").unwrap());
    mount.write(stays, 0, 512 * KIB).unwrap();
    mount.write(open, 0, 256 * KIB).unwrap();
    mount.unlink("open").unwrap();
    let stays = mount.used() - (256 * KIB + INODE_BYTES) as i64;
    drop(mount);
    let mount = Mount::keeping(scratch.path(), Some(MIB), 0, again(), |_| Total::AtLeast(0));
    // As after a kill, by which no figures are lost and some rounded up.
    assert!((stays..=stays + 128 * KIB as i64).contains(&mount.used()), "{} {stays}", mount.used());
    full(mount.create("more").and_then(|more| mount.write(more, 0, 768 * KIB)));
    drop(mount);
    // Of what the box had added, this is all that can be left.
    let mount = Mount::keeping(scratch.path(), Some(MIB), 0, again(), |_| Total::Known(4096));
    assert_eq!(mount.used(), 4096);
}

/// Many writes over one place reserve far more than they add, and a hostile kernel forgets what is reserved.
#[test]
fn what_is_reserved_is_looked_at_before_anything_is_refused() {
    let scratch = folder();
    let mount = Mount::of(scratch.path(), Some(MIB), 0);
    let (one, two) = (mount.create("one").unwrap(), mount.create("two").unwrap());
    mount.write(one, 0, 4 * KIB).unwrap();
    for _ in 0..500 {
        mount.write(one, 0, 4 * KIB).unwrap();
    }
    mount.write(two, 0, 900 * KIB).unwrap();
    full(mount.write(one, 4 * KIB, 200 * KIB));
    // Nothing is reserved for what is gone.
    mount.truncate(two, 0).unwrap();
    mount.write(two, 0, 4 * KIB).unwrap();
    mount.write(two, 4 * KIB, 400 * KIB).unwrap();
    mount.unlink("two").unwrap();
    mount.fs.releasedir(context(), two.0, 0, two.1).unwrap();
    mount.fs.forget(context(), two.0, 1);
    mount.write(one, 4 * KIB, 400 * KIB).unwrap();
    mount.write(one, 404 * KIB, 4 * KIB).unwrap();
    mount.fs.forget(context(), one.0, 1);
    mount.fs.releasedir(context(), one.0, 0, one.1).unwrap();
    assert_eq!(mount.fs.state().account.as_ref().unwrap().ledger.room(), MIB - mount.takes() as u64);
}

/// Each is charged for what it writes itself, so that together they add no more than both may.
#[test]
fn two_mounts_of_one_folder_are_charged_for_their_own() {
    let scratch = folder();
    let (one, two) = (Mount::of(scratch.path(), Some(MIB), 0), Mount::of(scratch.path(), Some(MIB), 0));
    let file = one.create("shared").unwrap();
    one.write(file, 0, 768 * KIB).unwrap();
    let seen = two.fs.lookup(context(), ROOT_ID, c"shared").unwrap().inode;
    let (handle, _) = two.fs.open(context(), seen, false, libc::O_RDWR as u32).unwrap();
    let same = (seen, handle.unwrap());
    two.write(same, 0, 4096).unwrap();
    assert_eq!(two.used(), 0);
    one.truncate(file, 0).unwrap();
    two.write(same, 0, 4096).unwrap();
    // Space that the other has freed is not credited a second time.
    assert!(two.used() >= 0, "{}", two.used());
    two.truncate(same, 0).unwrap();
    full(two.write(same, 0, 2 * MIB));
}

#[path = "metered_oracle_tests.rs"]
mod oracle;

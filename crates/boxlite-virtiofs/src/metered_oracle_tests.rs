//! The ledger beside the host's own figures (`st_blocks`, as `du` adds them up) after random requests, of an honest kernel and of
//! one that forgets what it has open.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// By how much the folder may grow; some of the requests do not fit.
const LIMIT: u64 = 512 * KIB;

/// The bytes of the folder before the box comes.
const BEFORE: u64 = 96 * KIB;

/// A guest's request. Numbers choose a place among few names, and an open file among those that there are.
#[derive(Debug, Clone)]
enum Request {
    Create(u8),
    Open(u8),
    MakeDirectory(u8),
    Symlink(u8),
    Link(u8, u8),
    Rename(u8, u8),
    Exchange(u8, u8),
    Unlink(u8),
    RemoveDirectory(u8),
    Write(u8, u64, u64),
    Truncate(u8, u64),
    Allocate(u8, u64, u64),
    AllocateBeyond(u8, u64, u64),
    Punch(u8, u64, u64),
    Copy(u8, u8, u64),
    Attribute(u8, usize),
    /// Closed first and then forgotten, or the other way round.
    Close(u8, bool),
    Restart,
}

fn request() -> impl Strategy<Value = Request> {
    use Request::*;
    let (place, file) = (0_u8..10, any::<u8>);
    let offset = || prop_oneof![(0..40_u64).prop_map(|block| block * 4 * KIB), 0..160 * KIB];
    let size = || prop_oneof![3 => 1..5000_u64, 2 => 1..64 * KIB, 1 => Just(128 * KIB)];
    prop_oneof![
        4 => place.clone().prop_map(Create),
        1 => place.clone().prop_map(Open),
        1 => place.clone().prop_map(MakeDirectory),
        1 => place.clone().prop_map(Symlink),
        2 => (file(), place.clone()).prop_map(|(file, to)| Link(file, to)),
        2 => (place.clone(), place.clone()).prop_map(|(from, to)| Rename(from, to)),
        1 => (place.clone(), place.clone()).prop_map(|(from, to)| Exchange(from, to)),
        3 => place.clone().prop_map(Unlink),
        1 => place.prop_map(RemoveDirectory),
        10 => (file(), offset(), size()).prop_map(|(file, at, size)| Write(file, at, size)),
        2 => (file(), offset()).prop_map(|(file, size)| Truncate(file, size)),
        2 => (file(), offset(), size()).prop_map(|(file, at, size)| Allocate(file, at, size)),
        1 => (file(), offset(), size()).prop_map(|(file, at, size)| AllocateBeyond(file, at, size)),
        2 => (file(), offset(), size()).prop_map(|(file, at, size)| Punch(file, at, size)),
        1 => (file(), file(), offset()).prop_map(|(from, to, at)| Copy(from, to, at)),
        1 => (file(), 0..3000_usize).prop_map(|(file, size)| Attribute(file, size)),
        3 => (file(), any::<bool>()).prop_map(|(file, honest)| Close(file, honest)),
        1 => Just(Restart),
    ]
}

/// A box's folder and what the box has open of it.
struct Play {
    scratch: tempfile::TempDir,
    kept: File,
    mount: Mount,
    below: u64,
    open: Vec<(u64, u64)>,
    before: i64,
}

impl Play {
    fn begin(scratch: tempfile::TempDir) -> Self {
        std::fs::create_dir(scratch.path().join("below")).unwrap();
        let old = File::create(scratch.path().join("n0")).unwrap();
        old.write_all_at(&vec![1; BEFORE as usize], 0).unwrap();
        old.sync_all().unwrap();
        let kept = tempfile::tempfile().unwrap();
        let before = allocated_of(scratch.path());
        let (mount, below) = Self::mount(scratch.path(), &kept);
        Self { scratch, kept, mount, below, open: Vec::new(), before }
    }

    fn mount(folder: &Path, kept: &File) -> (Mount, u64) {
        // The folder held enough for all that can be credited.
        let recount = |_| Total::AtLeast(1 << 40);
        let mount = Mount::keeping(folder, Some(LIMIT), 0, Some(kept.try_clone().unwrap()), recount);
        let below = mount.fs.lookup(context(), ROOT_ID, c"below").unwrap().inode;
        (mount, below)
    }

    /// By how much the folder has grown, as the host sees it.
    fn growth(&self) -> i64 {
        allocated_of(self.scratch.path()) - self.before
    }

    fn place(&self, place: u8) -> (u64, CString) {
        let parent = if place.is_multiple_of(2) { ROOT_ID } else { self.below };
        (parent, CString::new(format!("n{}", place / 2)).unwrap())
    }

    fn file(&self, number: u8) -> Option<(u64, u64)> {
        self.open.get(usize::from(number) % self.open.len().max(1)).copied()
    }

    /// Asks for it; whether it is granted is the daemon's decision.
    fn ask(&mut self, request: &Request) -> io::Result<()> {
        use Request::*;
        let fs = &self.mount.fs;
        let (ctx, no) = (context(), Extensions::default);
        let reading_and_writing = libc::O_RDWR as u32;
        match *request {
            Create(place) => {
                let (parent, name) = self.place(place);
                let flags = reading_and_writing | libc::O_CREAT as u32;
                let (entry, handle, _) = fs.create(ctx, parent, &name, 0o644, false, flags, 0, no())?;
                self.open.push((entry.inode, handle.unwrap()));
            }
            Open(place) => {
                let (parent, name) = self.place(place);
                let entry = fs.lookup(ctx, parent, &name)?;
                match fs.open(ctx, entry.inode, false, reading_and_writing) {
                    Ok((handle, _)) => self.open.push((entry.inode, handle.unwrap())),
                    Err(_) => fs.forget(ctx, entry.inode, 1),
                }
            }
            MakeDirectory(place) => {
                let (parent, name) = self.place(place);
                let entry = fs.mkdir(ctx, parent, &name, 0o755, 0, no())?;
                fs.forget(ctx, entry.inode, 1);
            }
            Symlink(place) => {
                let (parent, name) = self.place(place);
                let entry = fs.symlink(ctx, c"to", parent, &name, no())?;
                fs.forget(ctx, entry.inode, 1);
            }
            Link(number, to) => {
                let Some((inode, _)) = self.file(number) else { return Ok(()) };
                let (parent, name) = self.place(to);
                let entry = fs.link(ctx, inode, parent, &name)?;
                fs.forget(ctx, entry.inode, 1);
            }
            Rename(from, to) | Exchange(from, to) => {
                let flags = if let Exchange(..) = request { libc::RENAME_EXCHANGE } else { 0 };
                let ((parent, name), (target, renamed)) = (self.place(from), self.place(to));
                fs.rename(ctx, parent, &name, target, &renamed, flags)?;
            }
            Unlink(place) => {
                let (parent, name) = self.place(place);
                fs.unlink(ctx, parent, &name)?;
            }
            RemoveDirectory(place) => {
                let (parent, name) = self.place(place);
                fs.rmdir(ctx, parent, &name)?;
            }
            Write(number, at, size) => {
                let Some(file) = self.file(number) else { return Ok(()) };
                self.mount.write(file, at, size)?;
            }
            Truncate(number, size) => {
                let Some(file) = self.file(number) else { return Ok(()) };
                self.mount.truncate(file, size)?;
            }
            Allocate(number, at, size) | AllocateBeyond(number, at, size) | Punch(number, at, size) => {
                let Some(file) = self.file(number) else { return Ok(()) };
                let mode = match request {
                    Allocate(..) => 0,
                    AllocateBeyond(..) => libc::FALLOC_FL_KEEP_SIZE,
                    _ => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                };
                self.mount.fallocate(file, mode, at, size)?;
            }
            Copy(from, to, at) => {
                let (Some(from), Some(to)) = (self.file(from), self.file(to)) else { return Ok(()) };
                fs.copyfilerange(ctx, from.0, from.1, 0, to.0, to.1, at, 64 * KIB, 0)?;
            }
            Attribute(number, size) => {
                let Some((inode, _)) = self.file(number) else { return Ok(()) };
                fs.setxattr(ctx, inode, c"user.note", &vec![7; size], 0, SetxattrFlags::empty())?;
            }
            Close(number, honest) => {
                let Some(file) = self.file(number) else { return Ok(()) };
                self.open.retain(|&other| other != file);
                if honest {
                    self.mount.close(file);
                } else {
                    fs.forget(ctx, file.0, 1);
                    self.mount.release(file);
                }
            }
            Restart => {
                let _ = self.mount.used();
                self.mount.fs.metering().settle();
                self.open.clear();
                let (mount, below) = Self::mount(self.scratch.path(), &self.kept);
                (self.mount, self.below) = (mount, below);
            }
        }
        Ok(())
    }
}

/// Bytes allocated below `folder` and to its files that have lost their names but are open in this process, an inode as the
/// ledger counts it.
fn allocated_of(folder: &Path) -> i64 {
    let mut files: HashMap<u64, u64> = HashMap::new();
    let mut note = |found: &std::fs::Metadata| {
        files.insert(found.ino(), found.blocks() * 512 + INODE_BYTES);
    };
    let mut directories = vec![folder.to_owned()];
    while let Some(directory) = directories.pop() {
        note(&std::fs::metadata(&directory).unwrap());
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::symlink_metadata(&path).unwrap();
            note(&found);
            if found.is_dir() {
                directories.push(path);
            }
        }
    }
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // Those of other tests come and go.
        if let (Ok(target), Ok(found)) = (std::fs::read_link(&path), std::fs::metadata(&path))
            && target.starts_with(folder)
        {
            note(&found);
        }
    }
    files.values().sum::<u64>() as i64
}

fn is_what_du_says(scratch: tempfile::TempDir, requests: &[Request], slack: i64) {
    let mut play = Play::begin(scratch);
    for (number, request) in requests.iter().enumerate() {
        let answer = play.ask(request);
        let (grown, used) = (play.growth(), play.mount.used());
        assert!(
            (used..=used + slack).contains(&grown),
            "request {number}, {request:?}: {answer:?}: {grown} bytes more, {used} charged"
        );
        assert!(grown <= LIMIT as i64 + 64 * KIB as i64 + slack, "request {number}, {request:?}: {grown}");
    }
    let open: Vec<u64> = play.open.iter().map(|&(inode, _)| inode).collect();
    for file in std::mem::take(&mut play.open) {
        play.mount.close(file);
    }
    let (grown, used) = (play.growth(), play.mount.used());
    assert!((used..=used + slack).contains(&grown), "{open:?} closed: {grown} bytes more, {used} charged");
    assert_eq!(play.mount.fs.state().account.as_ref().unwrap().ledger.nameless(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Mutations tried: what is written to a file without a name is not noted as free with it; a file that is there already, and empty, is
    /// charged when it is created again. Each fails.
    #[test]
    fn what_is_charged_is_what_du_says(requests in prop::collection::vec(request(), 1..80)) {
        // A filesystem that allocates nothing late, so that not a byte may be missing.
        is_what_du_says(tempfile::tempdir_in("/dev/shm").unwrap(), &requests, 0);
        // One that sets blocks for its indexes of fragmented files aside when it writes them.
        is_what_du_says(folder(), &requests, 40 * BLOCK as i64);
    }
}

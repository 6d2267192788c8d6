//! Against a real folder, with a passthrough that has few descriptors.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use virtiofsd::filesystem::FsOptions;
use virtiofsd::fuse::ROOT_ID;
use virtiofsd::passthrough::{CachePolicy, Config, InodeFileHandlesMode, PassthroughFs};

use super::*;

/// Descriptors that a guest gets.
const FEW: u64 = 40;

fn context() -> Context {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Context { uid: uid.into(), gid: gid.into(), pid: 1 }
}

fn mount(folder: &Path, recalled: u64) -> Recalled<PassthroughFs> {
    let config = Config {
        root_dir: folder.to_str().unwrap().into(),
        inode_file_handles: InodeFileHandlesMode::Never,
        cache_policy: CachePolicy::Auto,
        guest_fd_limit: FEW,
        ..Config::default()
    };
    let fs = Recalled::new(PassthroughFs::new(config).unwrap(), recalled);
    fs.init(FsOptions::empty()).unwrap();
    fs
}

fn look(fs: &Recalled<PassthroughFs>, parent: u64, name: &str) -> io::Result<Entry> {
    fs.lookup(context(), parent, &CString::new(name).unwrap())
}

fn host_inode(fs: &Recalled<PassthroughFs>, file: u64) -> io::Result<u64> {
    fs.getattr(context(), file, None).map(|(attributes, _)| attributes.ino)
}

/// A folder with 12 directories of 20 files.
fn tree() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    for directory in 0..12 {
        let directory = scratch.path().join(format!("d{directory}"));
        std::fs::create_dir(&directory).unwrap();
        for file in 0..20 {
            std::fs::write(directory.join(format!("f{file}")), "text").unwrap();
        }
    }
    scratch
}

/// Looks at everything, as `find` does, and forgets nothing; the numbers by path.
fn walk(fs: &Recalled<PassthroughFs>) -> HashMap<String, u64> {
    let mut numbers = HashMap::new();
    for directory in 0..12 {
        let name = format!("d{directory}");
        let parent = look(fs, ROOT_ID, &name).unwrap().inode;
        numbers.insert(name.clone(), parent);
        for file in 0..20 {
            let found = look(fs, parent, &format!("f{file}")).unwrap();
            numbers.insert(format!("{name}/f{file}"), found.inode);
        }
    }
    numbers
}

#[track_caller]
fn errs<T>(result: io::Result<T>, expected: i32) {
    assert_eq!(result.err().expect("it fails").raw_os_error(), Some(expected));
}

/// Where nothing is let go, the walk ends with `ENFILE`.
#[test]
fn a_guest_knows_more_files_than_there_are_descriptors() {
    let scratch = tree();
    let fs = mount(scratch.path(), FEW);
    let numbers = walk(&fs);
    assert_eq!(numbers.len(), 252);
    for _ in 0..2 {
        for (path, &file) in &numbers {
            let expected = std::fs::metadata(scratch.path().join(path)).unwrap().ino();
            assert_eq!(host_inode(&fs, file).unwrap(), expected, "{path}");
        }
        assert_eq!(walk(&fs), numbers, "each keeps its number");
        assert!(fs.known().unwrap().descriptors() <= FEW);
    }
    // The passthrough alone.
    let plain = mount(scratch.path(), PLENTY);
    let mut last = Ok(());
    for directory in 0..12 {
        last = last.and_then(|()| look(&plain, ROOT_ID, &format!("d{directory}"))).and_then(|parent| {
            (0..20).try_for_each(|file| look(&plain, parent.inode, &format!("f{file}")).map(drop))
        });
    }
    errs(last, libc::ENFILE);
}

#[test]
fn what_the_guest_renames_removes_or_has_open_is_found() {
    let scratch = tree();
    let fs = mount(scratch.path(), FEW);
    let numbers = walk(&fs);
    let number = |path: &str| numbers[path];
    let inode_at = |path: &str| std::fs::metadata(scratch.path().join(path)).unwrap().ino();
    let (opened, _) = fs.open(context(), number("d3/f3"), false, libc::O_RDONLY as u32).unwrap();
    fs.rename(context(), number("d0"), c"f0", number("d1"), c"moved", 0).unwrap();
    fs.rename(context(), ROOT_ID, c"d2", number("d1"), c"below", 0).unwrap();
    let exchange = libc::RENAME_EXCHANGE;
    fs.rename(context(), number("d4"), c"f0", number("d4"), c"f1", exchange).unwrap();
    let kept = [inode_at("d4/f2"), inode_at("d5/f0")];
    // Both are held when their names go: a guest may be about to use them.
    for (path, &inode) in ["d4/f2", "d5/f0"].iter().zip(&kept) {
        assert_eq!(host_inode(&fs, number(path)).unwrap(), inode);
    }
    fs.unlink(context(), number("d4"), c"f2").unwrap();
    fs.rename(context(), number("d5"), c"f1", number("d5"), c"f0", 0).unwrap();
    walk_what_is_left(&fs, &numbers);
    assert_eq!(host_inode(&fs, number("d0/f0")).unwrap(), inode_at("d1/moved"));
    assert_eq!(host_inode(&fs, number("d2/f7")).unwrap(), inode_at("d1/below/f7"));
    assert_eq!(host_inode(&fs, number("d4/f0")).unwrap(), inode_at("d4/f1"));
    assert_eq!(host_inode(&fs, number("d4/f1")).unwrap(), inode_at("d4/f0"));
    assert_eq!([number("d4/f2"), number("d5/f0")].map(|file| host_inode(&fs, file).unwrap()), kept);
    assert_eq!(host_inode(&fs, number("d5/f1")).unwrap(), inode_at("d5/f0"));
    fs.flush(context(), number("d3/f3"), opened.unwrap(), 0).unwrap();
    fs.release(context(), number("d3/f3"), 0, opened.unwrap(), false, false, None).unwrap();
    // When the guest has forgotten all, nothing is left.
    let known = numbers.values().map(|&file| (file, u64::MAX)).collect();
    fs.batch_forget(context(), known);
    assert_eq!(fs.known().unwrap().descriptors(), 1);
    errs(host_inode(&fs, number("d0")), libc::EBADF);
}

/// Has all others be asked for, so that what can be let go is.
fn walk_what_is_left(fs: &Recalled<PassthroughFs>, numbers: &HashMap<String, u64>) {
    for (path, &file) in numbers {
        if path.starts_with("d9") || path.starts_with("d8") {
            host_inode(fs, file).unwrap();
        }
    }
}

/// The charge is kept by number: a file by two numbers would be credited twice.
#[test]
fn a_file_has_one_number() {
    let scratch = tree();
    let fs = mount(scratch.path(), FEW);
    let numbers = walk(&fs);
    let at = |path: &str| scratch.path().join(path);
    // A name that another has made, of a file that is let go.
    std::fs::hard_link(at("d0/f0"), at("d11/linked")).unwrap();
    let d11 = look(&fs, ROOT_ID, "d11").unwrap().inode;
    assert_eq!(look(&fs, d11, "linked").unwrap().inode, numbers["d0/f0"]);
    // One that another has renamed meanwhile.
    std::fs::rename(at("d0/f1"), at("d11/renamed")).unwrap();
    let renamed = look(&fs, d11, "renamed").unwrap().inode;
    assert_ne!(renamed, numbers["d0/f1"]);
    errs(host_inode(&fs, numbers["d0/f1"]), libc::ESTALE);
    std::fs::rename(at("d11/renamed"), at("d0/f1")).unwrap();
    walk(&fs);
    errs(host_inode(&fs, numbers["d0/f1"]), libc::ESTALE);
    // One that another has replaced.
    std::fs::write(at("new"), "text").unwrap();
    std::fs::rename(at("new"), at("d0/f2")).unwrap();
    errs(host_inode(&fs, numbers["d0/f2"]), libc::ESTALE);
    let replaced = look(&fs, numbers["d0"], "f2").unwrap();
    assert!(
        replaced.inode != numbers["d0/f2"]
            && replaced.attr.ino == std::fs::metadata(at("d0/f2")).unwrap().ino()
    );
    // Directories that another has moved into each other: what is found through them is what was meant, or nothing.
    let expected = ["d6/f6", "d7/f6"].map(|path| (numbers[path], std::fs::metadata(at(path)).unwrap().ino()));
    std::fs::rename(at("d6"), at("aside")).unwrap();
    std::fs::rename(at("d7"), at("aside/d7")).unwrap();
    for (file, inode) in expected {
        match host_inode(&fs, file) {
            Ok(found) => assert_eq!(found, inode),
            error => errs(error, libc::ESTALE),
        }
    }
}

/// The guest is told of the one file that there is no descriptor for, and goes on when it has closed some.
#[test]
fn handles_are_never_let_go() {
    let scratch = tree();
    let fs = mount(scratch.path(), FEW);
    let numbers = walk(&fs);
    let mut open = Vec::new();
    let refused =
        numbers.values().find_map(|&file| match fs.open(context(), file, false, libc::O_RDONLY as u32) {
            Ok((handle, _)) => {
                open.push((file, handle.unwrap()));
                None
            }
            Err(error) => Some(error),
        });
    // A handle takes two: its own, and its file's.
    assert!((15..20).contains(&open.len()), "{}", open.len());
    errs::<()>(Err(refused.unwrap()), libc::ENFILE);
    for (file, handle) in open {
        fs.flush(context(), file, handle, 0).unwrap();
        fs.release(context(), file, 0, handle, false, false, None).unwrap();
    }
    assert_eq!(walk(&fs), numbers);
}

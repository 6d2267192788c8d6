//! Lists the box's disk, and packs the files that are asked for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use boxlite_archive::tree::{FileDetail, TreeFile, TreeTime, end_of_list, read_selection};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::copy_out::CountingWriter;
use super::op_error::OpError;

/// Lists every file of the root filesystem into `out`, then reads a selection from `input` and packs the selected files.
/// Returns the bytes written.
///
/// The list leaves out mounts, shows the files that they cover, and has no sockets, which mean nothing elsewhere.
pub(super) fn exchange(out: impl Write, mut input: impl Read) -> Result<u64, OpError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let opening = |e: Errno| OpError::io("opening the box's disk", &e);
    let root = rustix::mount::open_tree(CWD, "/", flags).map_err(opening)?;
    // Extended attributes are asked for by paths alone.
    rustix::process::fchdir(&root).map_err(opening)?;
    let mut out = CountingWriter { inner: BufWriter::with_capacity(64 << 10, out), bytes: 0 };
    let files = list(&root, &mut out).map_err(|e| OpError::std_io("listing the box's files", &e))?;
    let sending = |e: io::Error| OpError::std_io("sending the box's files", &e);
    end_of_list(&mut out).and_then(|()| out.flush()).map_err(sending)?;
    let selected = read_selection(&mut input, files.len()).map_err(sending)?;
    for place in selected {
        let file = &files[place as usize];
        send(&root, file, &mut out).map_err(|e| {
            let path = String::from_utf8_lossy(&file.path);
            OpError::std_io(&format!("sending /{path}"), &e)
        })?;
    }
    out.flush().map_err(sending)?;
    Ok(out.bytes)
}

/// The facts about a listed file that packing it needs.
struct Listed {
    path: Vec<u8>,
    mode: u32,
}

/// Lists depth first, the names of a directory in their order, as archives are best unpacked.
fn list(root: &OwnedFd, out: &mut impl Write) -> io::Result<Vec<Listed>> {
    let mut files = Vec::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let relative = if path.is_empty() { b".".as_slice() } else { &path };
        let stat = match rustix::fs::statat(root, OsStr::from_bytes(relative), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed or replaced since its directory was read.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            continue;
        }
        let mut names = Vec::new();
        if kind == FileType::Directory {
            match open(root, &path, OFlags::DIRECTORY) {
                Ok(directory) => names = names_in(&directory)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        described(&path, &stat).write(out)?;
        // The last of `pending` comes next.
        for name in names.into_iter().rev() {
            let mut child = path.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend(name);
            pending.push(child);
        }
        files.push(Listed { path, mode: stat.st_mode });
    }
    Ok(files)
}

fn names_in(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn described(path: &[u8], stat: &Stat) -> TreeFile {
    let time = |seconds: i64, nanoseconds: u64| TreeTime { seconds, nanoseconds: nanoseconds as u32 };
    TreeFile {
        path: path.to_vec(),
        inode: stat.st_ino,
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink as u32,
        size: stat.st_size as u64,
        device: stat.st_rdev,
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// Opens a file of the disk by its path, through no symbolic link.
fn open(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, Path::new(OsStr::from_bytes(path)), flags, Mode::empty(), resolve)
}

fn send(root: &OwnedFd, file: &Listed, out: &mut impl Write) -> io::Result<()> {
    let mut detail = FileDetail::default();
    match examine(root, file, &mut detail) {
        Ok(contents) => {
            detail.present = true;
            detail.write(out, contents)
        }
        // Removed or replaced since it was listed.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => {
            FileDetail::default().write(out, None)
        }
        Err(error) => Err(error.into()),
    }
}

fn examine(root: &OwnedFd, file: &Listed, detail: &mut FileDetail) -> rustix::io::Result<Option<File>> {
    let relative = if file.path.is_empty() { b".".as_slice() } else { &file.path };
    let path = Path::new(OsStr::from_bytes(relative));
    detail.attributes = attributes(path)?;
    match FileType::from_raw_mode(file.mode) {
        FileType::Symlink => {
            detail.target = rustix::fs::readlinkat(CWD, path, Vec::new())?.into_bytes();
            Ok(None)
        }
        FileType::RegularFile => {
            let opened = open(root, &file.path, OFlags::NOATIME)?;
            let stat = rustix::fs::fstat(opened.as_fd())?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(Errno::NOENT);
            }
            let contents = File::from(opened);
            detail.describe(&contents, stat.st_size as u64);
            Ok(Some(contents))
        }
        _ => Ok(None),
    }
}

/// Reads the extended attributes of a file; a link is not followed.
fn attributes(path: &Path) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match grown(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grown(|buffer| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Calls `read` with a buffer that is large enough.
fn grown(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let length = read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

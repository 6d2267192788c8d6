//! Files of a box as a tar archive of canonical headers, for a layer or for a user.
//!
//! The same files give the same bytes. What does not fit a plain header (times with fractions, long names, extended
//! attributes) is in a pax header before it. Holes are written as zeros, because Docker reads no sparse entries.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use boxlite_archive::tree::{FileDetail, TreeFile};
use boxlite_types::{ChangeKind, Error, Result};
use tar::{EntryType, Header};

use super::compare::parent;
use super::{BoxChanges, DIRECTORY, REGULAR, TYPE, broken};

/// How often the bytes of a box's disk may come again, for the second names of files: the guest sends contents with each.
const MAX_REPEATS: u64 = 64;
/// The prefix of a whiteout's name.
const WHITEOUT: &[u8] = b".wh.";

/// Writes files, which are read from `from`, in the order of `files`: as a layer of `changes`, or as a plain archive.
pub(crate) fn write_files(
    out: &mut impl Write,
    files: &[&TreeFile],
    from: &mut impl Read,
    most: u64,
    changes: Option<&BoxChanges>,
) -> Result<()> {
    let mut left = most;
    let mut repeated = most.saturating_mul(MAX_REPEATS);
    let mut first_names: HashMap<u64, &[u8]> = HashMap::new();
    let mut gone: HashSet<&[u8]> = HashSet::new();
    for file in files {
        let shown = || String::from_utf8_lossy(&file.path).into_owned();
        let name = file.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if changes.is_some() && name.starts_with(WHITEOUT) {
            let message = format!("/{} has a name that means a deleted file in an image; rename it", shown());
            return Err(Error::unsupported(message));
        }
        let detail = FileDetail::read(from).map_err(broken)?;
        if !detail.present {
            // Removed since it was listed: what the base has there is gone as well, unless its directory took it along.
            let is_of_base =
                changes.is_some_and(|changes| changes.all.get(&file.path) == Some(&ChangeKind::Changed));
            if is_of_base && !parent(&file.path).is_some_and(|at| gone.contains(at)) {
                write_whiteout(out, &file.path)?;
            }
            gone.insert(&file.path);
            continue;
        }
        let is_regular = file.mode & TYPE == REGULAR;
        let first = (is_regular && file.links > 1).then(|| first_names.get(&file.inode).copied()).flatten();
        if let Some(first) = first {
            repeated = repeated.checked_sub(content(&detail)).ok_or_else(|| {
                let message = format!("/{} and other second names come with too many bytes", shown());
                Error::unsupported(message)
            })?;
            skip(from, &detail)?;
            let mut header = plain_header(file);
            header.set_entry_type(EntryType::Link);
            write_entry(out, header, &file.path, first, Vec::new())?;
            continue;
        }
        if is_regular && file.links > 1 {
            first_names.insert(file.inode, &file.path);
        }
        if !is_regular && !detail.runs.is_empty() {
            let why = format!("/{} is no regular file, and comes with contents", shown());
            return Err(broken(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let length = if is_regular { detail.length } else { 0 };
        let attributes: usize = detail.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        left = left.checked_sub(length.saturating_add(attributes as u64)).ok_or_else(|| {
            let message =
                format!("/{} and the files before it have more than {most} bytes, holes included", shown());
            Error::unsupported(message)
        })?;
        let mut header = plain_header(file);
        header.set_size(length);
        write_entry(out, header, &file.path, &detail.target, pax_records(file, &detail))?;
        if is_regular {
            write_contents(out, from, &detail)?;
        }
    }
    Ok(())
}

/// Writes the mark that hides what lower layers have at `path`.
pub(super) fn write_whiteout(out: &mut impl Write, path: &[u8]) -> Result<()> {
    let directory = parent(path).unwrap_or_default();
    let name = &path[directory.len() + usize::from(!directory.is_empty())..];
    let mut whiteout = directory.to_vec();
    if !whiteout.is_empty() {
        whiteout.push(b'/');
    }
    whiteout.extend_from_slice(WHITEOUT);
    whiteout.extend_from_slice(name);
    let mut header = Header::new_ustar();
    header.set_mode(0o600);
    header.set_size(0);
    header.set_entry_type(EntryType::Regular);
    write_entry(out, header, &whiteout, b"", Vec::new())
}

fn plain_header(file: &TreeFile) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(file.mode & 0o7777);
    header.set_uid(file.uid.into());
    header.set_gid(file.gid.into());
    header.set_mtime(file.modified.seconds.try_into().unwrap_or(0));
    header.set_size(0);
    let kind = match file.mode & TYPE {
        DIRECTORY => EntryType::Directory,
        0o120_000 => EntryType::Symlink,
        0o020_000 => EntryType::Char,
        0o060_000 => EntryType::Block,
        0o010_000 => EntryType::Fifo,
        _ => EntryType::Regular,
    };
    header.set_entry_type(kind);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        // An ustar header has room for both.
        let _ = header.set_device_major(rustix::fs::major(file.device));
        let _ = header.set_device_minor(rustix::fs::minor(file.device));
    }
    header
}

/// Returns the values that a plain header has no place for.
fn pax_records(file: &TreeFile, detail: &FileDetail) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    let time = file.modified;
    if time.nanoseconds != 0 || time.seconds < 0 {
        records.push((b"mtime".to_vec(), decimal_time(time.seconds, time.nanoseconds).into_bytes()));
    }
    for (name, value) in &detail.attributes {
        records.push(([b"SCHILY.xattr.", &name[..]].concat(), value.clone()));
    }
    records
}

/// Seconds with a fraction, whose sign is that of the whole.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

/// Writes the headers of an entry.
fn write_entry(
    out: &mut impl Write,
    mut header: Header,
    path: &[u8],
    target: &[u8],
    mut pax: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<()> {
    let mut name = if path.is_empty() { b"./".to_vec() } else { path.to_vec() };
    if header.entry_type().is_dir() && !name.ends_with(b"/") {
        name.push(b'/');
    }
    let ustar = header.as_mut_bytes();
    let put = |field: &mut [u8], text: &[u8]| {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    };
    put(&mut ustar[..100], &name);
    put(&mut ustar[157..257], target);
    if name.len() > 100 {
        pax.push((b"path".to_vec(), name));
    }
    if target.len() > 100 {
        pax.push((b"linkpath".to_vec(), target.to_vec()));
    }
    header.set_cksum();
    if !pax.is_empty() {
        let mut records = Vec::new();
        for (key, value) in &pax {
            append_pax(&mut records, key, value);
        }
        let mut extended = Header::new_ustar();
        extended.as_mut_bytes()[..9].copy_from_slice(b"PaxHeader");
        extended.set_mode(0o644);
        extended.set_size(records.len() as u64);
        extended.set_entry_type(EntryType::XHeader);
        extended.set_cksum();
        out.write_all(extended.as_bytes()).map_err(writing)?;
        out.write_all(&records).map_err(writing)?;
        pad(out, records.len() as u64)?;
    }
    out.write_all(header.as_bytes()).map_err(writing)
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn append_pax(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().into_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// Writes a file's contents with zeros for its holes.
fn write_contents(out: &mut impl Write, from: &mut impl Read, detail: &FileDetail) -> Result<()> {
    let mut at = 0;
    for run in &detail.runs {
        zeros(out, run.offset - at)?;
        let mut part = from.take(run.length);
        let copied = io::copy(&mut part, out).map_err(either)?;
        if copied < run.length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        at = run.offset + run.length;
    }
    zeros(out, detail.length - at)?;
    pad(out, detail.length)
}

/// Bytes that follow the record: no more than its length, since its parts do not overlap.
fn content(detail: &FileDetail) -> u64 {
    detail.runs.iter().map(|run| run.length).sum()
}

/// Passes over contents that are not wanted.
fn skip(from: &mut impl Read, detail: &FileDetail) -> Result<()> {
    let length = content(detail);
    let skipped = io::copy(&mut from.take(length), &mut io::sink()).map_err(broken)?;
    if skipped < length { Err(broken(io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
}

fn zeros(out: &mut impl Write, mut count: u64) -> Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    while count > 0 {
        let length = count.min(ZEROS.len() as u64) as usize;
        out.write_all(&ZEROS[..length]).map_err(writing)?;
        count -= length as u64;
    }
    Ok(())
}

fn pad(out: &mut impl Write, length: u64) -> Result<()> {
    zeros(out, length.next_multiple_of(512) - length)
}

/// A failure of either end of a copy.
fn either(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => broken(error),
    }
}

pub(super) fn writing(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Error::new(boxlite_types::ErrorKind::Cancelled, "the archive's reader is gone").because(error)
        }
        Err(error) => Error::io("writing", "the layer", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_count_themselves() {
        for length in [1, 7, 89, 90, 91, 92, 93, 990, 9_985] {
            let mut records = Vec::new();
            append_pax(&mut records, b"key", &vec![b'v'; length]);
            let stated: usize =
                std::str::from_utf8(&records).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(stated, records.len());
        }
    }

    fn regular(path: &str, inode: u64, links: u32) -> TreeFile {
        let time = boxlite_archive::tree::TreeTime::default();
        let path = path.as_bytes().to_vec();
        let mode = REGULAR | 0o644;
        TreeFile {
            path,
            inode,
            mode,
            uid: 0,
            gid: 0,
            links,
            size: 0,
            device: 0,
            modified: time,
            changed: time,
        }
    }

    fn packed(
        files: &[TreeFile],
        from: &[u8],
        most: u64,
        changes: Option<&BoxChanges>,
    ) -> Result<Vec<String>> {
        let mut out = Vec::new();
        let files: Vec<&TreeFile> = files.iter().collect();
        write_files(&mut out, &files, &mut &*from, most, changes)?;
        let mut archive = tar::Archive::new(&*out);
        let name = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()
        };
        Ok(archive.entries().unwrap().map(name).collect())
    }

    #[test]
    fn a_file_of_the_base_that_is_gone_when_it_is_read_is_whited_out() {
        let files = ["d", "d/below", "new", "old"].map(|path| regular(path, 7, 1));
        let kinds = [ChangeKind::Changed, ChangeKind::Changed, ChangeKind::Added, ChangeKind::Changed];
        let all = files.iter().map(|file| file.path.clone()).zip(kinds).collect();
        let changes = BoxChanges { all, selected: vec![0, 1, 2, 3] };
        let mut answer = Vec::new();
        for _ in &files {
            FileDetail::default().write(&mut answer, None).unwrap();
        }
        assert_eq!(packed(&files, &answer, 100, Some(&changes)).unwrap(), [".wh.d", ".wh.old"]);
        assert_eq!(packed(&files, &answer, 100, None).unwrap(), [""; 0]);
    }

    #[test]
    fn what_a_guest_announces_is_bounded() {
        let run = |length| FileDetail {
            present: true,
            length,
            runs: vec![boxlite_archive::DataRun { offset: 0, length }],
            ..FileDetail::default()
        };
        let answer = |details: &[&FileDetail]| {
            let mut answer = Vec::new();
            for detail in details {
                detail.write(&mut answer, None).unwrap();
                answer.extend(vec![b'x'; detail.length.min(1000) as usize]);
            }
            answer
        };
        let names = [regular("a", 7, 2), regular("b", 7, 2)];
        let kind = |files: &[TreeFile], from: &[u8]| packed(files, from, 100, None).unwrap_err().kind();
        assert_eq!(packed(&names, &answer(&[&run(100), &run(100)]), 100, None).unwrap(), ["a", "b"]);
        let endless = answer(&[&run(100), &run(u64::MAX)]);
        assert_eq!(kind(&names, &endless), boxlite_types::ErrorKind::Unsupported);
        let directory = TreeFile { mode: 0o040_755, ..regular("d", 7, 1) };
        assert_eq!(kind(&[directory], &answer(&[&run(5)])), boxlite_types::ErrorKind::Corrupt);
        let mut attributed = run(50);
        attributed.attributes = vec![(b"user.a".to_vec(), vec![0; 45])];
        assert_eq!(kind(&names[..1], &answer(&[&attributed])), boxlite_types::ErrorKind::Unsupported);
    }

    #[test]
    fn times_before_1970_have_their_fraction_right() {
        assert_eq!(decimal_time(1, 5), "1.000000005");
        assert_eq!(decimal_time(-1, 750_000_000), "-0.250000000");
        assert_eq!(decimal_time(-2, 750_000_000), "-1.250000000");
        assert_eq!(decimal_time(-2, 0), "-2");
    }
}

mod differential;

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use boxlite_home::durable::FileId;
use proptest::prelude::*;

use super::chain::DEEPEST;
use super::header::{BOUND, Backing, HeaderError, LONGEST_NAME};
use super::*;

/// Follows the one overlay at `path`.
pub(in crate::disk) fn follow_file(chains: &mut Chains, path: &Path) -> Result<Option<Followed>, Unknown> {
    let directory = File::open(path.parent().unwrap()).unwrap();
    let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
    chains.follow(directory.as_fd(), &name, &|| path.to_owned())
}

fn bytes(backing: &Path, format: BackingFormat) -> Vec<u8> {
    overlay_header(backing, format, 10 << 30).unwrap().head
}

fn write(path: &Path, backing: &Path, format: BackingFormat) -> FileId {
    std::fs::write(path, bytes(backing, format)).unwrap();
    id(path)
}

fn id(path: &Path) -> FileId {
    FileId::of(&std::fs::metadata(path).unwrap())
}

/// Sets the backing name of a header made above to any bytes.
fn with_name(name: &[u8], format: BackingFormat) -> Vec<u8> {
    let mut head = bytes(Path::new("/"), format);
    head[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    head.pop();
    head.extend_from_slice(name);
    head
}

#[test]
fn a_header_of_ours_reads_back() {
    let path = Path::new(OsStr::from_bytes(b"/h/images/\xff\xfe.ext4"));
    let head = bytes(path, BackingFormat::Raw);
    let header = Qcow2Header::parse(&head).unwrap();
    let backing = Backing { name: path.as_os_str().as_bytes(), format: BackingFormat::Raw };
    assert_eq!(
        header,
        Qcow2Header { version: 3, cluster: CLUSTER, virtual_size: 10 << 30, backing: Some(backing) }
    );
}

#[test]
fn what_cannot_be_written_is_refused() {
    let long = PathBuf::from(format!("/{}", "x".repeat(LONGEST_NAME)));
    assert!(overlay_header(&long, BackingFormat::Raw, 1 << 30).is_err());
    assert!(overlay_header(Path::new("relative"), BackingFormat::Raw, 1 << 30).is_err());
    assert!(overlay_header(Path::new("/x"), BackingFormat::Raw, 0).is_err());
    assert!(overlay_header(Path::new("/x"), BackingFormat::Raw, (16 << 40) + 1).is_err());
    assert!(overlay_header(Path::new("/x"), BackingFormat::Other, 1).is_err());
}

/// Mutation tried: each check of the parser removed in turn; the matching line here failed.
#[test]
fn hostile_headers_are_errors() {
    let good = bytes(Path::new("/a"), BackingFormat::Raw);
    let patched = |at: usize, with: &[u8]| {
        let mut head = good.clone();
        head[at..at + with.len()].copy_from_slice(with);
        head
    };
    for (head, expected) in [
        (Vec::new(), HeaderError::NotQcow2),
        (b"QFI".to_vec(), HeaderError::NotQcow2),
        (b"QFI\xfb".to_vec(), HeaderError::Truncated),
        (good[..60].to_vec(), HeaderError::Truncated),
        (good[..103].to_vec(), HeaderError::Truncated),
        (good[..good.len() - 1].to_vec(), HeaderError::Truncated),
        (patched(4, &[0, 0, 0, 4]), HeaderError::Version(4)),
        (patched(4, &[0, 0, 0, 1]), HeaderError::Version(1)),
        (patched(20, &[0, 0, 0, 8]), HeaderError::ClusterBits(8)),
        (patched(20, &[0, 0, 0, 63]), HeaderError::ClusterBits(63)),
        (patched(79, &[4]), HeaderError::ExternalData),
        (patched(79, &[0x20]), HeaderError::UnknownFeatures(0x20)),
        (patched(72, &[0x80]), HeaderError::UnknownFeatures(1 << 63)),
        (patched(100, &[0, 0, 0, 8]), HeaderError::HeaderLength(8)),
        (patched(100, &[0, 0, 0, 105]), HeaderError::HeaderLength(105)),
        (patched(100, &[0xff, 0xff, 0xff, 0xf8]), HeaderError::HeaderLength(0xffff_fff8)),
        (patched(16, &[0, 0, 4, 0]), HeaderError::NameLength(1024)),
        (patched(16, &[0xff; 4]), HeaderError::NameLength(u32::MAX)),
        (patched(8, &[0xff; 8]), HeaderError::NameLength(2)),
        (patched(8, &[0, 0, 0, 0, 0, 0, 0x80, 0]), HeaderError::BeyondBound),
        (patched(108, &[0xff; 4]), HeaderError::Extensions),
        (patched(104, b"DATA"), HeaderError::ExternalData),
        (with_name(b"/a\0b", BackingFormat::Raw), HeaderError::NulInName),
    ] {
        assert_eq!(Qcow2Header::parse(&head), Err(expected), "{head:02x?}");
    }
}

#[test]
fn chains_are_followed_by_identity() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("root.ext4"), b"raw").unwrap();
    symlink(at("root.ext4"), at("alias.ext4")).unwrap();
    symlink(at("base.qcow2"), at("alias.qcow2")).unwrap();
    let root = id(&at("root.ext4"));
    let base = write(&at("base.qcow2"), &at("root.ext4"), BackingFormat::Raw);
    let cases: [(&[u8], BackingFormat, Vec<FileId>); 10] = [
        (b"root.ext4", BackingFormat::Raw, vec![root]),
        (b"sub/../root.ext4", BackingFormat::Raw, vec![root]),
        (b"alias.ext4", BackingFormat::Raw, vec![root]),
        (b"file:root.ext4", BackingFormat::Raw, vec![root]),
        (b"base.qcow2", BackingFormat::Qcow2, vec![base, root]),
        (b"alias.qcow2", BackingFormat::Qcow2, vec![base, root]),
        (b"base.qcow2", BackingFormat::Unnamed, vec![base, root]),
        (b"root.ext4", BackingFormat::Unnamed, vec![root]),
        // A raw file whose content looks like a qcow2 header was written by a guest: it is not believed.
        (b"base.qcow2", BackingFormat::Raw, vec![base]),
        (b"gone.qcow2", BackingFormat::Qcow2, vec![]),
    ];
    let mut chains = Chains::new(None);
    for (name, format, expected) in cases {
        let written = if format == BackingFormat::Unnamed { BackingFormat::Raw } else { format };
        let mut head = with_name(name, written);
        if format == BackingFormat::Unnamed {
            head[104..112].fill(0);
        }
        std::fs::write(at("top.qcow2"), head).unwrap();
        let followed = follow_file(&mut chains, &at("top.qcow2")).unwrap().unwrap();
        let (files, end) = chains.below(followed.backing);
        assert_eq!(files, expected, "{:?} {format:?}", String::from_utf8_lossy(name));
        let missing = end.problem().map(|index| chains.unknown(index).missing);
        assert_eq!(missing, expected.is_empty().then_some(true), "{end:?}");
    }
    let absolute = at("sub/../alias.qcow2");
    write(&at("top.qcow2"), &absolute, BackingFormat::Qcow2);
    let followed = follow_file(&mut chains, &at("top.qcow2")).unwrap().unwrap();
    assert_eq!(chains.below(followed.backing), (vec![base, root], ChainLink::End));
}

#[test]
fn a_moved_home_is_found_by_file_name() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("abc.ext4"), b"raw").unwrap();
    let top = home.path().join("top.qcow2");
    write(&top, Path::new("/nowhere/images/disk-images/abc.ext4"), BackingFormat::Raw);
    let mut chains = Chains::new(Some(BackingDirectories {
        raw: home.path().to_owned(),
        deltas: home.path().to_owned(),
        bases: home.path().to_owned(),
    }));
    let followed = follow_file(&mut chains, &top).unwrap().unwrap();
    assert_eq!(chains.below(followed.backing), (vec![id(&home.path().join("abc.ext4"))], ChainLink::End));
}

/// Mutation tried: without the depth cap the deep chain is believed; without the cycle check its reason is lost.
#[test]
fn cycles_depth_and_strange_files_are_unknown() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let end_of = |chains: &mut Chains, top: &Path| match follow_file(chains, top) {
        Err(unknown) => Err(unknown),
        Ok(followed) => match chains.below(followed.unwrap().backing).1 {
            ChainLink::Unknown(index) => Err(chains.unknown(index).clone()),
            link => Ok(link),
        },
    };
    write(&at("self.qcow2"), &at("self.qcow2"), BackingFormat::Qcow2);
    write(&at("ping.qcow2"), &at("pong.qcow2"), BackingFormat::Qcow2);
    write(&at("pong.qcow2"), &at("ping.qcow2"), BackingFormat::Qcow2);
    std::fs::hard_link(at("self.qcow2"), at("other-name.qcow2")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    symlink(at("self.qcow2"), at("symlink.qcow2")).unwrap();
    std::fs::create_dir(at("directory.qcow2")).unwrap();
    std::fs::write(at("empty.qcow2"), b"").unwrap();
    for (index, name) in
        [&b"json:{\"driver\":\"raw\"}"[..], b"nbd://x/y", b"a:b", b"file:json:x", b"fat:rw:/tmp"]
            .iter()
            .enumerate()
    {
        std::fs::write(at(&format!("protocol{index}.qcow2")), with_name(name, BackingFormat::Qcow2)).unwrap();
    }
    write(&at("on-fifo.qcow2"), &at("fifo"), BackingFormat::Qcow2);
    write(&at("on-raw-fifo.qcow2"), &at("fifo"), BackingFormat::Raw);
    write(&at("on-empty.qcow2"), &at("empty.qcow2"), BackingFormat::Qcow2);
    for name in [
        "self.qcow2",
        "other-name.qcow2",
        "ping.qcow2",
        "pong.qcow2",
        "fifo",
        "symlink.qcow2",
        "directory.qcow2",
        "empty.qcow2",
        "protocol0.qcow2",
        "protocol1.qcow2",
        "protocol2.qcow2",
        "protocol3.qcow2",
        "protocol4.qcow2",
        "on-fifo.qcow2",
        "on-raw-fifo.qcow2",
        "on-empty.qcow2",
    ] {
        assert!(end_of(&mut Chains::new(None), &at(name)).is_err(), "{name} was believed");
    }

    let looped = end_of(&mut Chains::new(None), &at("ping.qcow2")).unwrap_err();
    assert!(looped.why.contains("cycle"), "{looped:?}");

    std::fs::write(at("link-0"), b"raw").unwrap();
    for depth in 1..=DEEPEST + 2 {
        let format = if depth == 1 { BackingFormat::Raw } else { BackingFormat::Qcow2 };
        write(&at(&format!("link-{depth}")), &at(&format!("link-{}", depth - 1)), format);
    }
    let ends = |depth: usize| end_of(&mut Chains::new(None), &at(&format!("link-{depth}")));
    assert_eq!(ends(DEEPEST), Ok(ChainLink::End));
    assert!(ends(DEEPEST + 1).is_err());
    assert_eq!(follow_file(&mut Chains::new(None), &at("absent.qcow2")), Ok(None));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail_without_a_panic(mut noise in proptest::collection::vec(any::<u8>(), 0..BOUND + 64)) {
        let _ = Qcow2Header::parse(&noise);
        let plausible = bytes(Path::new("/a/b"), BackingFormat::Qcow2);
        let end = noise.len().min(8);
        noise[..end].copy_from_slice(&plausible[..end]);
        let _ = Qcow2Header::parse(&noise);
    }

    #[test]
    fn a_header_with_flipped_bytes_never_panics(flips in proptest::collection::vec((0usize..140, any::<u8>()), 1..6)) {
        let mut head = bytes(Path::new("/a/b"), BackingFormat::Qcow2);
        for (at, value) in flips {
            let at = at % head.len();
            head[at] = value;
        }
        if let Ok(Qcow2Header { backing: Some(backing), .. }) = Qcow2Header::parse(&head) {
            prop_assert!(backing.name.len() <= LONGEST_NAME);
        }
    }
}

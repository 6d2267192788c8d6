use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::endpoint::copied_name;
use super::space::DestinationSpace;
use super::target::{DestinationState, decide};
use super::tree::KeptAttributes;
use super::unpack::unpack_within;
use super::*;

#[test]
fn endpoints_are_told_apart_as_docker_does() {
    let in_box = |id: &str, path: &str| Endpoint::Box { id: id.into(), path: path.into() };
    let on_host = |path: &str| Endpoint::Host(path.into());
    assert_eq!(Endpoint::parse("web:/etc/hosts"), in_box("web", "/etc/hosts"));
    assert_eq!(Endpoint::parse("web:etc/"), in_box("web", "/etc/"));
    assert_eq!(Endpoint::parse("web:a:b"), in_box("web", "/a:b"));
    assert_eq!(Endpoint::parse("web:"), in_box("web", "/"));
    assert_eq!(Endpoint::parse("file"), on_host("file"));
    assert_eq!(Endpoint::parse("./a:b"), on_host("./a:b"));
    assert_eq!(Endpoint::parse("/a:b"), on_host("/a:b"));
    assert_eq!(Endpoint::parse("../a:b"), on_host("../a:b"));
    assert_eq!(Endpoint::parse(":x"), on_host(":x"));
    assert_eq!(Endpoint::parse("-"), Endpoint::Stream);
}

#[test]
fn a_copy_is_named_after_its_source() {
    assert_eq!(copied_name("/etc/hosts"), Some("hosts"));
    assert_eq!(copied_name("/etc/"), Some("etc"));
    assert_eq!(copied_name("/etc/."), None);
    assert_eq!(copied_name("/"), None);
    assert_eq!(copied_name("/a/.."), None);
}

#[test]
fn the_destination_decides_between_into_and_as() {
    let go = |destination: &str, present, directory, name| {
        decide(destination, present, directory, name)
            .map(|target| (target.root.to_str().unwrap().to_owned(), target.name))
            .map_err(|failure| failure.to_string())
    };
    let to = |root: &str, name: &str| Ok((root.to_owned(), Some(name.into())));
    assert_eq!(go("d", DestinationState::Directory, false, Some("f")), to("d", "f"));
    assert_eq!(go("d/", DestinationState::Directory, true, Some("s")), to("d/", "s"));
    assert_eq!(go("d", DestinationState::Directory, true, None), Ok(("d".to_owned(), None)));
    assert_eq!(go("new", DestinationState::Nothing, false, Some("f")), to(".", "new"));
    assert_eq!(go("d/new", DestinationState::Nothing, true, Some("s")), to("d", "new"));
    assert_eq!(go("d/new/", DestinationState::Nothing, true, Some("s")), to("d", "new"));
    assert_eq!(go("new", DestinationState::Nothing, true, None), Ok(("new".to_owned(), None)));
    assert_eq!(go("d/old", DestinationState::File, false, Some("f")), to("d", "old"));
    assert!(go("new/", DestinationState::Nothing, false, Some("f")).unwrap_err().contains("does not exist"));
    assert!(go("old", DestinationState::File, true, Some("s")).unwrap_err().contains("is a file"));
    assert!(go("old/", DestinationState::File, false, Some("f")).unwrap_err().contains("not a directory"));
    assert!(go("/dev/null", DestinationState::Special, false, Some("f")).unwrap_err().contains("neither"));
}

/// Packs `source` and unpacks it again, as if it came from a box's path of the same form.
fn round(source: &str, destination: &Path) -> Result<(), String> {
    let mut tar = Vec::new();
    let found = CopySource::find(source, false).map_err(|failure| failure.to_string())?;
    pack(&found, &mut tar).map_err(|error| error.to_string())?;
    unpack(&tar[..], source, destination.to_str().unwrap(), false)
        .map(drop)
        .map_err(|failure| failure.to_string())
}

#[test]
fn a_tree_survives_the_round_trip() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("src");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    fs::write(source.join("deep/er/data"), vec![7; 100_000]).unwrap();
    let long = "n".repeat(200);
    fs::write(source.join(&long), b"").unwrap();
    fs::set_permissions(source.join(&long), fs::Permissions::from_mode(0o4741)).unwrap();
    symlink("/anywhere/../at/all", source.join("link")).unwrap();
    fs::set_permissions(source.join("deep"), fs::Permissions::from_mode(0o555)).unwrap();

    let into = home.path().join("into");
    fs::create_dir(&into).unwrap();
    let text = source.to_str().unwrap();
    round(text, &into).unwrap();
    round(text, &home.path().join("as")).unwrap();
    round(&format!("{text}/."), &home.path().join("contents")).unwrap();
    for copy in ["into/src", "as", "contents"] {
        let copy = home.path().join(copy);
        assert_eq!(fs::read(copy.join("deep/er/data")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("/anywhere/../at/all"));
        assert_eq!(fs::metadata(copy.join(&long)).unwrap().mode() & 0o7777, 0o741, "set-id bits stay behind");
        assert_eq!(fs::metadata(copy.join("deep")).unwrap().mode() & 0o777, 0o555);
        assert_eq!(
            fs::metadata(copy.join("deep/er/data")).unwrap().mtime(),
            fs::metadata(source.join("deep/er/data")).unwrap().mtime()
        );
    }
    for tree in ["src", "into/src", "as", "contents"] {
        // Or the temporary directory can't be removed by anybody but root.
        fs::set_permissions(home.path().join(tree).join("deep"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = (home.path().join("old"), home.path().join("new"));
    fs::write(&old, b"precious").unwrap();
    fs::write(&new, b"fresh contents").unwrap();
    let mut tar = Vec::new();
    pack(&CopySource::find(new.to_str().unwrap(), false).unwrap(), &mut tar).unwrap();
    let destination = old.to_str().unwrap();
    unpack(&tar[..520], "/new", destination, false).unwrap_err();
    assert_eq!(fs::read(&old).unwrap(), b"precious");
    unpack(&tar[..], "/new", destination, false).unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"fresh contents");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "nothing else is left behind");
}

enum Trick<'a> {
    File(&'a str),
    Directory(&'a str),
    Symlink(&'a str, &'a str),
    Link(&'a str, &'a str),
}

/// A tar stream with names that the crate itself would refuse to write.
fn archive(tricks: &[Trick<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for trick in tricks {
        let (name, kind, link) = match trick {
            Trick::File(name) => (name, EntryType::Regular, ""),
            Trick::Directory(name) => (name, EntryType::Directory, ""),
            Trick::Symlink(name, link) => (name, EntryType::Symlink, *link),
            Trick::Link(name, link) => (name, EntryType::Link, *link),
        };
        let contents: &[u8] = if kind == EntryType::Regular { b"evil" } else { b"" };
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn no_entry_leaves_the_destination() {
    use Trick::{Directory, File, Link, Symlink};
    // The second half of each pair says whether the copy is refused; otherwise the link gives way to a directory.
    // Mutation tried: without the unlink in `enter_or_make` and NO_SYMLINKS, attack 2 writes outside of `s`.
    let attacks: [(&[Trick<'_>], bool); 9] = [
        (&[Directory("s"), File("s/../../victim")], true),
        (&[Directory("s"), File("/tmp/../victim")], true),
        (&[Directory("s"), Symlink("s/out", ".."), File("s/out/victim")], false),
        (&[Directory("s"), Symlink("s/out", "OUTSIDE"), File("s/out/victim")], false),
        (&[Directory("s"), Symlink("s/a", "../.."), Directory("s/a/b"), File("s/a/victim")], false),
        (&[Directory("s"), Link("s/got", "../secret")], true),
        (&[Directory("s"), Symlink("s/up", "../.."), Link("s/got", "s/up/secret")], true),
        (&[Directory("s"), File("other/victim")], true),
        (&[Directory("s"), Directory("s/d"), Symlink("s/d/l", ".."), File("s/d/l/victim")], false),
    ];
    for (number, (attack, refused)) in attacks.iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("secret"), b"secret").unwrap();
        let inside = home.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().to_str().unwrap();
        let attack: Vec<Trick<'_>> = attack
            .iter()
            .map(|trick| match trick {
                Symlink(name, "OUTSIDE") => Symlink(name, link),
                Symlink(name, to) => Symlink(name, to),
                File(name) => File(name),
                Directory(name) => Directory(name),
                Link(name, to) => Link(name, to),
            })
            .collect();
        let copied = unpack(&archive(&attack)[..], "/x/s", inside.to_str().unwrap(), false);
        assert_eq!(copied.is_err(), *refused, "attack {number}: {copied:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "attack {number}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "attack {number}");
        let stays = ["s/got", "s/victim", "victim"];
        assert!(stays.iter().all(|name| !inside.join(name).exists()), "attack {number}");
    }
}

/// A link that one copy brought is not followed by the next, at the top no more than below it.
/// Mutation tried: the unlink in `enter_or_make` left out, and `NO_SYMLINKS` too: both files land outside.
#[test]
fn a_link_of_an_earlier_copy_leads_nowhere() {
    use Trick::{Directory, File, Symlink};
    let home = tempfile::tempdir().unwrap();
    let project = home.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("Makefile"), b"mine").unwrap();
    let copy = |tricks: &[Trick<'_>]| {
        unpack(&archive(tricks)[..], "/out", project.to_str().unwrap(), false).unwrap();
    };
    copy(&[Directory("out"), Symlink("out/logs", "..")]);
    copy(&[Directory("out"), Directory("out/logs"), File("out/logs/Makefile")]);
    assert_eq!(fs::read(project.join("Makefile")).unwrap(), b"mine");
    assert_eq!(fs::read(project.join("out/logs/Makefile")).unwrap(), b"evil");
    fs::remove_dir_all(project.join("out")).unwrap();
    copy(&[Symlink("out", "..")]);
    copy(&[Directory("out"), File("out/Makefile")]);
    assert_eq!(fs::read(project.join("out/Makefile")).unwrap(), b"evil");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

/// The box chooses where the top entry leads; a copy goes there only if the user writes a `/`.
/// Mutation tried: `DirectoryLink` taken for a directory; the second copy overwrote the file beside the link.
#[test]
fn a_destination_that_an_earlier_copy_made_a_link_is_not_followed() {
    use Trick::{Directory, File, Symlink};
    let home = tempfile::tempdir().unwrap();
    let (out, real) = (home.path().join("out"), home.path().join("real"));
    fs::create_dir_all(real.join("out")).unwrap();
    fs::write(real.join("out/Makefile"), b"mine").unwrap();
    let copy = |tricks: &[Trick<'_>], to: &str| {
        let to = format!("{}{to}", home.path().display());
        unpack(&archive(tricks)[..], "/out", &to, false).map(drop)
    };
    copy(&[Symlink("out", "real")], "/out").unwrap();
    let refused = copy(&[Directory("out"), File("out/Makefile")], "/out").unwrap_err();
    assert!(refused.to_string().contains("is a symbolic link to a directory"), "{refused}");
    assert_eq!(fs::read(real.join("out/Makefile")).unwrap(), b"mine");
    // A link to a file, or to nothing, is replaced.
    fs::remove_file(&out).unwrap();
    for target in ["real/out/Makefile", "nowhere"] {
        symlink(target, &out).unwrap();
        copy(&[File("out")], "/out").unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"evil");
        fs::remove_file(&out).unwrap();
    }
    assert_eq!(fs::read(real.join("out/Makefile")).unwrap(), b"mine");
    assert!(!home.path().join("nowhere").exists());
    // The user asks for it.
    symlink("real", &out).unwrap();
    copy(&[Directory("out"), File("out/asked")], "/out/").unwrap();
    assert!(real.join("out/asked").exists());
}

/// Looks at what has been done when everything before it has been read.
struct Probe<F>(F);

impl<F: FnMut()> std::io::Read for Probe<F> {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0();
        Ok(0)
    }
}

/// Only the way to the present entry waits for its mode, and not every directory of the archive.
/// Mutation tried: directories finished only at the end.
#[test]
fn many_entries_take_no_memory_and_directories_are_finished_on_the_way() {
    use Trick::{Directory, File};
    use std::io::Read;
    let home = tempfile::tempdir().unwrap();
    let to = home.path().to_str().unwrap().to_owned();
    let attributes = |directory: &str| {
        let found = fs::metadata(home.path().join(directory)).unwrap();
        (found.mode() & 0o700, found.mtime())
    };
    let mut begin = archive(&[Directory("s"), Directory("s/a"), File("s/a/f"), Directory("s/b")]);
    begin.truncate(begin.len() - 1024);
    let mut rest = Builder::new(Vec::new());
    for number in 0..1000 {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Fifo);
        header.set_mode(0o600);
        header.set_size(0);
        rest.append_data(&mut header, format!("s/b/pipe{number}"), &[][..]).unwrap();
    }
    let rest = rest.into_inner().unwrap();
    let probe = Probe(|| assert_eq!(attributes("s/a"), (0o700, 0), "the archive has gone on to s/b"));
    let unpacked = unpack((&begin[..]).chain(probe).chain(&rest[..]), "/s", &to, false).unwrap();
    assert_eq!((unpacked.skipped.named().len(), unpacked.skipped.unnamed()), (20, 980));
    for directory in ["s", "s/a", "s/b"] {
        assert_eq!(attributes(directory), (0o700, 0), "{directory}");
    }
}

#[test]
fn hard_links_within_the_tree_are_kept_both_ways() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("s");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), vec![7; 100_000]).unwrap();
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    symlink("nowhere", source.join("l")).unwrap();
    let copy = home.path().join("t");
    // Mutation tried: without `linked` in `append`, the copies are two files.
    round(source.to_str().unwrap(), &copy).unwrap();
    let inode = |name: &str| fs::metadata(copy.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(fs::read(copy.join("b")).unwrap(), vec![7; 100_000]);
    // Over what is there already, too.
    round(&format!("{}/.", source.display()), &copy).unwrap();
    assert_eq!(inode("a"), inode("b"));
}

/// Mutation tried: the further headers of the map left out.
#[test]
fn holes_stay_holes_both_ways() {
    use std::os::unix::fs::FileExt;
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("sparse");
    let file = fs::File::create(&source).unwrap();
    // More runs than one header has room for, and a hole at the end.
    for run in 0..60_u64 {
        file.write_all_at(&[run as u8 + 1; 4096], run * (16 << 20)).unwrap();
    }
    file.set_len(8 << 30).unwrap();
    let all_hole = home.path().join("hole");
    fs::File::create(&all_hole).unwrap().set_len(1 << 30).unwrap();
    let mut tar = Vec::new();
    pack(&CopySource::find(source.to_str().unwrap(), false).unwrap(), &mut tar).unwrap();
    assert!(tar.len() < 1 << 20, "{} bytes", tar.len());
    for (path, copy) in [(&source, "a"), (&all_hole, "b")] {
        round(path.to_str().unwrap(), &home.path().join(copy)).unwrap();
        let copy = fs::File::open(home.path().join(copy)).unwrap();
        let metadata = copy.metadata().unwrap();
        assert_eq!(metadata.len(), fs::metadata(path).unwrap().len());
        assert!(metadata.blocks() * 512 < 2 << 20, "{} blocks", metadata.blocks());
    }
    let copy = fs::File::open(home.path().join("a")).unwrap();
    let mut block = [0; 4096];
    for run in 0..60_u64 {
        copy.read_exact_at(&mut block, run * (16 << 20)).unwrap();
        assert_eq!(block, [run as u8 + 1; 4096]);
    }
}

/// A header of an archive that claims more than it holds.
fn claiming(kind: EntryType, size: u64, real_size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..1].copy_from_slice(b"s");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    if kind == EntryType::GNUSparse {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(real_size);
        gnu.sparse[0].set_offset(real_size - size);
        gnu.sparse[0].set_length(size);
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + 2048, b'x');
    bytes
}

/// Mutations tried: `MAX_NAME` left out, which allocates 1.5 GB; a `check` that never refuses.
#[test]
fn claims_of_an_archive_take_neither_memory_nor_disk() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().to_str().unwrap();
    let failure = |bytes: &[u8]| unpack(bytes, "/s", to, false).unwrap_err();
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let text = failure(&claiming(kind, 1_500_000_000, 0)).to_string();
        assert!(text.contains("1500000000 bytes"), "{text}");
    }
    let huge = failure(&claiming(EntryType::Regular, 1 << 60, 0));
    assert!(huge.to_string().contains("stay free"), "{huge}");
    assert_eq!(huge.exit(), crate::report::Exit::NO_ROOM);
    // A hole, whatever its length, is written as a hole.
    let mut sparse = claiming(EntryType::GNUSparse, 2048, 2 << 30);
    sparse.resize(sparse.len() + 1024, 0);
    unpack(&sparse[..], "/s", to, false).unwrap();
    let copy = fs::metadata(home.path().join("s")).unwrap();
    assert_eq!(copy.len(), 2 << 30);
    assert!(copy.blocks() * 512 < 1 << 20);
    // A map that does not fit its file.
    let mut lying = Header::from_byte_slice(&claiming(EntryType::GNUSparse, 2048, 2 << 30)[..512]).clone();
    lying.as_gnu_mut().unwrap().set_real_size(100);
    lying.set_cksum();
    assert!(failure(lying.as_bytes()).to_string().contains("map"));
}

/// Mutation tried: `check` that never refuses.
#[test]
fn a_copy_stops_at_the_floor_and_leaves_no_file() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().to_str().unwrap();
    let kept = KeptAttributes { owners: false, mode: 0o777 };
    // Of the size of the whole disk, which is never free.
    let full = DestinationSpace::with_floor(u64::MAX);
    let failure = unpack_within(&archive(&[Trick::File("s")])[..], "/s", to, kept, full).unwrap_err();
    assert!(failure.to_string().contains("stay free"), "{failure}");
    assert_eq!(failure.exit(), crate::report::Exit::NO_ROOM);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn the_umask_holds_unless_everything_is_to_be_kept() {
    let home = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(Vec::new());
    for (name, kind, mode) in [("s", EntryType::Directory, 0o3777), ("s/f", EntryType::Regular, 0o6777)] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12_345);
        header.set_gid(54_321);
        header.set_size(0);
        builder.append_data(&mut header, name, &[][..]).unwrap();
    }
    let stream = builder.into_inner().unwrap();
    let root = rustix::process::geteuid().is_root();
    let masked = KeptAttributes { owners: false, mode: 0o777 & !0o027 };
    let kept = KeptAttributes { owners: root, mode: 0o1777 };
    // Mutations tried: the mask left out of `KeptAttributes::new`; the set-id bits let through.
    for (rules, to, directory, file) in [(masked, "a", 0o750, 0o750), (kept, "b", 0o1777, 0o777)] {
        let to = home.path().join(to);
        let space = DestinationSpace::with_floor(0);
        unpack_within(&stream[..], "/s", to.to_str().unwrap(), rules, space).unwrap();
        let [above, below] = [to.clone(), to.join("f")].map(|path| fs::metadata(path).unwrap());
        assert_eq!((above.mode() & 0o7777, below.mode() & 0o7777), (directory, file));
        assert_eq!(below.uid() == 12_345 && below.gid() == 54_321, rules.owners);
        assert_eq!(above.uid() == 12_345, rules.owners);
    }
    assert_eq!(KeptAttributes::new(false).mode & 0o7002, 0, "the test's own umask takes writing from others");
}

#[test]
fn a_link_is_followed_when_asked_and_only_at_the_top() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("real")).unwrap();
    symlink("x", at("real/inner")).unwrap();
    symlink("real", at("link")).unwrap();
    for (follow, directory) in [(false, false), (true, true)] {
        let mut tar = Vec::new();
        let link = at("link");
        pack(&CopySource::find(link.to_str().unwrap(), follow).unwrap(), &mut tar).unwrap();
        let to = at(if follow { "followed" } else { "kept" });
        unpack(&tar[..], "/link", to.to_str().unwrap(), false).unwrap();
        assert_eq!(fs::symlink_metadata(&to).unwrap().is_dir(), directory);
    }
    assert_eq!(fs::read_link(at("followed/inner")).unwrap(), Path::new("x"));
}

#[test]
fn what_can_not_be_copied_is_said() {
    let home = tempfile::tempdir().unwrap();
    let missing = CopySource::find("/no/such/thing", false).unwrap_err().to_string();
    assert_eq!(missing, "/no/such/thing does not exist on this host");
    let socket = home.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(CopySource::find(socket.to_str().unwrap(), false).unwrap_err().to_string().contains("socket"));
    let mut tar = Vec::new();
    let packed = pack(&CopySource::find(home.path().to_str().unwrap(), false).unwrap(), &mut tar).unwrap();
    assert_eq!((packed.skipped.named(), packed.skipped.unnamed()), (&[socket][..], 0));
    assert!(
        unpack(&[][..], "/x", home.path().to_str().unwrap(), false).is_err(),
        "an empty stream is no copy"
    );
    assert!(unpack(&[1; 2000][..], "/x", home.path().to_str().unwrap(), false).is_err(), "nor is garbage");
}

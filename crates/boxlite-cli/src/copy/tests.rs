use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::endpoint::copied_name;
use super::target::{DestinationState, decide};
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
    let found = CopySource::find(source).map_err(|failure| failure.to_string())?;
    pack(&found, &mut tar).map_err(|error| error.to_string())?;
    unpack(&tar[..], source, destination.to_str().unwrap()).map(drop).map_err(|failure| failure.to_string())
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
    pack(&CopySource::find(new.to_str().unwrap()).unwrap(), &mut tar).unwrap();
    let destination = old.to_str().unwrap();
    unpack(&tar[..520], "/new", destination).unwrap_err();
    assert_eq!(fs::read(&old).unwrap(), b"precious");
    unpack(&tar[..], "/new", destination).unwrap();
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
    // Mutation tried: without ResolveFlags::BENEATH in DestinationTree::enter, attack 2 goes unnoticed.
    let attacks: [&[Trick<'_>]; 8] = [
        &[Directory("s"), File("s/../../victim")],
        &[Directory("s"), File("/tmp/../victim")],
        &[Directory("s"), Symlink("s/out", ".."), Symlink("s/up", "../.."), File("s/up/victim")],
        &[Directory("s"), Symlink("s/out", "OUTSIDE"), File("s/out/victim")],
        &[Directory("s"), Symlink("s/a", "../.."), Directory("s/a/b"), File("s/a/victim")],
        &[Directory("s"), Link("s/got", "../secret")],
        &[Directory("s"), Symlink("s/up", "../.."), Link("s/got", "s/up/secret")],
        &[Directory("s"), File("other/victim")],
    ];
    for (number, attack) in attacks.iter().enumerate() {
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
        unpack(&archive(&attack)[..], "/x/s", inside.to_str().unwrap())
            .expect_err(&format!("attack {number} went unnoticed"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "attack {number}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "attack {number}");
        assert!(!inside.join("s/got").exists(), "attack {number}");
    }
}

#[test]
fn links_within_the_tree_are_kept() {
    use Trick::{Directory, File, Link, Symlink};
    let home = tempfile::tempdir().unwrap();
    let stream = archive(&[
        Directory("s"),
        File("s/a"),
        Link("s/b", "s/a"),
        Directory("s/d"),
        Symlink("s/l", "d"),
        File("s/l/in"),
    ]);
    unpack(&stream[..], "/s", home.path().join("t").to_str().unwrap()).unwrap();
    let inode = |name: &str| fs::metadata(home.path().join("t").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(fs::read(home.path().join("t/d/in")).unwrap(), b"evil");
    // Over what is there already, too.
    unpack(&stream[..], "/s/.", home.path().join("t").to_str().unwrap()).unwrap();
}

#[test]
fn what_can_not_be_copied_is_said() {
    let home = tempfile::tempdir().unwrap();
    let missing = CopySource::find("/no/such/thing").unwrap_err().to_string();
    assert_eq!(missing, "/no/such/thing does not exist on this host");
    let socket = home.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(CopySource::find(socket.to_str().unwrap()).unwrap_err().to_string().contains("socket"));
    let mut tar = Vec::new();
    let packed = pack(&CopySource::find(home.path().to_str().unwrap()).unwrap(), &mut tar).unwrap();
    assert_eq!(packed.skipped, [socket]);
    assert!(unpack(&[][..], "/x", home.path().to_str().unwrap()).is_err(), "an empty stream is no copy");
    assert!(unpack(&[1; 2000][..], "/x", home.path().to_str().unwrap()).is_err(), "nor is garbage");
}

//! Archives in and out, with the semantics of `docker cp`.

use boxlite_proto::{FileKind, Op, OpEvent, OpFailure, Stream};
use tar::{Builder, EntryType, Header};

use crate::machine::{Arrival, Machine};
use crate::shared;

#[derive(Clone, Copy)]
enum Item<'a> {
    File(&'a str, &'a [u8]),
    Directory(&'a str),
    Link(EntryType, &'a str, &'a str),
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_mtime(1_600_000_000);
        header.set_uid(33);
        header.set_gid(44);
        let (name, target, contents) = match item {
            Item::File(name, contents) => {
                header.set_mode(0o4755);
                header.set_entry_type(EntryType::Regular);
                (*name, "", *contents)
            }
            Item::Directory(name) => {
                header.set_mode(0o750);
                header.set_entry_type(EntryType::Directory);
                (*name, "", &[][..])
            }
            Item::Link(kind, name, target) => {
                header.set_mode(0o777);
                header.set_entry_type(*kind);
                (*name, *target, &[][..])
            }
        };
        // Written raw: the crate refuses to write what a hostile archive holds.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

fn copy_in(machine: &Machine, dest: &str, keep_owners: bool, bytes: &[u8]) -> OpEvent {
    let running = machine.start(Op::CopyIn { id: 0, dest: dest.into(), keep_owners });
    running.write(bytes);
    running.end_input();
    match running.next() {
        Arrival::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

fn accepted(machine: &Machine, dest: &str, bytes: &[u8]) {
    match copy_in(machine, dest, false, bytes) {
        OpEvent::Copied { bytes: n, .. } => assert_eq!(n, bytes.len() as u64),
        other => panic!("{dest}: {other:?}"),
    }
}

fn refused(machine: &Machine, dest: &str, bytes: &[u8]) -> (OpFailure, String) {
    match copy_in(machine, dest, false, bytes) {
        OpEvent::Failed { kind, message, .. } => (kind, message),
        other => panic!("{dest}: {other:?}"),
    }
}

fn copy_out(machine: &Machine, path: &str, follow: bool) -> Result<Vec<u8>, OpFailure> {
    let running = machine.start(Op::CopyOut { id: 0, path: path.into(), follow });
    let mut bytes = Vec::new();
    loop {
        match running.next() {
            Arrival::Data(Stream::Stdout, mut more) => bytes.append(&mut more),
            Arrival::Eof(Stream::Stdout) => {}
            Arrival::Event(OpEvent::Copied { bytes: n, .. }) => {
                assert_eq!(n, bytes.len() as u64);
                return Ok(bytes);
            }
            Arrival::Event(OpEvent::Failed { kind, .. }) => return Err(kind),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_lands_where_docker_puts_it() {
    let Some(machine) = shared() else { return };
    machine.sh("mkdir -p /cp/dir /cp/full/name; echo old > /cp/file; ln -s dir /cp/link; ln -s /cp/file /cp/filelink");
    let one = archive(&[Item::File("name", b"contents")]);
    accepted(machine, "/cp/dir", &one);
    accepted(machine, "/cp/link/", &one);
    accepted(machine, "/cp/new", &one);
    accepted(machine, "/cp/filelink", &one);
    let found =
        machine.sh("cd /cp; cat dir/name new file; stat -c '%a %u %g %Y' dir/name; readlink filelink");
    assert_eq!(found, "contentscontentscontents4755 0 0 1600000000\n/cp/file");
    assert_eq!(refused(machine, "/cp/full", &one).0, OpFailure::WrongKind);
    assert_eq!(refused(machine, "/cp/missing/", &one).0, OpFailure::NotFound);
    assert_eq!(refused(machine, "/cp/missing/new", &one).0, OpFailure::NotFound);
    assert_eq!(refused(machine, "/cp/new/", &one).0, OpFailure::WrongKind);
    assert_eq!(refused(machine, "cp/new", &one).0, OpFailure::Invalid);
    assert!(matches!(copy_in(machine, "/cp/owned", true, &one), OpEvent::Copied { .. }));
    assert_eq!(machine.sh("stat -c '%a %u %g' /cp/owned; rm -r /cp"), "4755 33 44");
}

/// Otherwise a copy of `/` would read the 128 TiB of `/proc/kcore`.
#[test]
fn what_is_mounted_and_no_part_of_the_box_stays_out() {
    let Some(machine) = shared() else { return };
    machine.sh(
        "mkdir -p /outer/kernel /outer/memory; mount -t proc none /outer/kernel; mount -t tmpfs none /outer/memory; \
         echo disk >/outer/file; echo memory >/outer/memory/file; ln -s kernel /outer/link",
    );
    let names = |path: &str| {
        let bytes = copy_out(machine, path, false).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("/outer"), ["outer", "outer/file", "outer/kernel", "outer/link", "outer/memory"]);
    assert_eq!(names("/outer/memory"), ["memory", "memory/file"]);
    assert_eq!(names("/outer/link"), ["link"]);
    for path in ["/outer/kernel", "/outer/link/", "/outer/kernel/cpuinfo", "/proc/self/status", "/sys/kernel"]
    {
        assert_eq!(copy_out(machine, path, false), Err(OpFailure::Invalid), "{path}");
    }
    machine.sh("umount /outer/kernel /outer/memory; rm -r /outer");
}

#[test]
fn a_directory_lands_where_docker_puts_it() {
    let Some(machine) = shared() else { return };
    machine.sh("mkdir -p /cpd/there; touch /cpd/file");
    let tree = [
        Item::Directory("src"),
        Item::File("src/a", b"A"),
        Item::Link(EntryType::Symlink, "src/s", "/etc/passwd"),
        Item::Link(EntryType::Link, "src/h", "src/a"),
    ];
    let tree = archive(&tree);
    accepted(machine, "/cpd/there", &tree);
    accepted(machine, "/cpd/renamed", &tree);
    for at in ["there/src", "renamed"] {
        let found =
            machine.sh(&format!("cd /cpd/{at}; stat -c '%a %Y' .; cat a h; readlink s; stat -c %h a"));
        assert_eq!(found, "750 1600000000\nAA/etc/passwd\n2", "{at}");
    }
    assert_eq!(refused(machine, "/cpd/file", &tree).0, OpFailure::WrongKind);
    let contents = archive(&[Item::Directory("./"), Item::File("./a", b"A"), Item::Directory("./d")]);
    accepted(machine, "/cpd/there", &contents);
    accepted(machine, "/cpd/fresh", &contents);
    assert_eq!(
        machine.sh("cd /cpd; cat there/a fresh/a; ls -d there/src fresh/d; rm -r /cpd"),
        "AAfresh/d\nthere/src"
    );
}

/// Mutation tried: every top-level entry under the first one's name.
#[test]
fn no_top_level_entry_takes_another_one_s_place() {
    let Some(machine) = shared() else { return };
    machine.sh("mkdir -p /tops/dir; echo old > /tops/file; echo other > /tops/other");
    let two = archive(&[
        Item::File("a", b"A"),
        Item::Directory("b"),
        Item::File("b/c", b"C"),
        Item::Link(EntryType::Link, "d", "b/c"),
        Item::Directory("./"),
    ]);
    accepted(machine, "/tops/dir", &two);
    let found = machine.sh("cd /tops/dir; find . | sort; cat a b/c d; rm -r /tops/dir");
    assert_eq!(found, ".\n./a\n./b\n./b/c\n./d\nACC");
    for others in [
        vec![Item::File("b", b"B")],
        vec![Item::Directory("a/d"), Item::Directory("b")],
        vec![Item::File("./", b"B")],
        vec![Item::Link(EntryType::Link, "a/l", "other")],
    ] {
        let items: Vec<Item<'_>> = [Item::Directory("a")].into_iter().chain(others).collect();
        let (kind, message) = refused(machine, "/tops/new", &archive(&items));
        assert_eq!(kind, OpFailure::BadArchive, "{message}");
        assert!(message.contains("/tops/new"), "{message}");
    }
    let files = archive(&[Item::File("a", b"A"), Item::File("b", b"B")]);
    assert_eq!(refused(machine, "/tops/file", &files).0, OpFailure::BadArchive);
    let copied = archive(&[Item::File("./a", b"A"), Item::File("a", b"again")]);
    accepted(machine, "/tops/copied", &copied);
    assert_eq!(
        machine.sh("cd /tops; ls; cat file other copied; rm -r /tops"),
        "copied\nfile\nother\nAother\nagain"
    );
}

/// Mutation tried: taking a global header for an entry.
#[test]
fn what_an_archive_says_about_itself_is_no_entry() {
    let Some(machine) = shared() else { return };
    let mut header = Header::new_ustar();
    header.set_path("pax_global_header").unwrap();
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_mode(0o666);
    let comment = b"52 comment=8f3c0a52b1e94d6c7a2f0b9d8e1c3a4f5b6d7e80\n";
    header.set_size(comment.len() as u64);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &comment[..]).unwrap();
    let global = builder.into_inner().unwrap();
    let global = &global[..global.len() - 1024];
    let tree = archive(&[Item::Directory("src"), Item::File("src/a", b"A")]);
    let exported = [global, &tree].concat();
    machine.sh("mkdir -p /global/dir");
    accepted(machine, "/global/dir", &exported);
    accepted(machine, "/global/new", &exported);
    assert_eq!(
        machine.sh("cd /global; ls . dir; cat dir/src/a new/a; rm -r /global"),
        ".:\ndir\nnew\n\ndir:\nsrc\nAA"
    );
    assert_eq!(refused(machine, "/tmp", &[global, &[0; 1024]].concat()).0, OpFailure::BadArchive);
}

/// Mutation tried: without the chroot, /esc/victim is overwritten by way of the link.
#[test]
fn no_entry_escapes() {
    let Some(machine) = shared() else { return };
    machine.sh("mkdir -p /esc/in /esc/out; echo safe > /esc/victim; ln -s /esc/out /esc/in/present");
    let (kind, message) = refused(machine, "/esc/in", &archive(&[Item::File("../victim", b"x")]));
    assert_eq!(kind, OpFailure::BadArchive);
    assert!(message.contains("../victim"), "{message}");
    assert_eq!(
        refused(machine, "/esc/in", &archive(&[Item::File("/esc/victim", b"x")])).0,
        OpFailure::BadArchive
    );
    let by_link = [
        Item::Directory("a"),
        Item::Link(EntryType::Symlink, "a/up", "../../../esc"),
        Item::File("a/up/victim", b"x"),
    ];
    let _ = copy_in(machine, "/esc/in", false, &archive(&by_link));
    let by_hard_link = [Item::Link(EntryType::Link, "hard", "../victim"), Item::File("hard", b"x")];
    assert_eq!(refused(machine, "/esc/in", &archive(&by_hard_link)).0, OpFailure::BadArchive);
    let _ = copy_in(machine, "/esc/in", false, &archive(&[Item::File("present/planted", b"x")]));
    assert_eq!(machine.sh("cat /esc/victim; ls /esc/out | wc -l; rm -r /esc"), "safe\n0");
}

#[test]
fn damaged_archives_and_a_full_disk_are_told_apart() {
    let Some(machine) = shared() else { return };
    assert_eq!(refused(machine, "/tmp", b"").0, OpFailure::BadArchive);
    assert_eq!(refused(machine, "/tmp", &[7; 1024]).0, OpFailure::BadArchive);
    let mut cut = archive(&[Item::File("cut", &[1; 5000])]);
    cut.truncate(3000);
    assert_eq!(refused(machine, "/tmp", &cut).0, OpFailure::BadArchive);
    machine.sh("mkdir /small; mount -t tmpfs -o size=64k none /small");
    let big = archive(&[Item::File("big", &vec![1; 1 << 20])]);
    assert_eq!(refused(machine, "/small", &big).0, OpFailure::NoSpace);
    machine.sh("umount /small; rmdir /small");
}

/// Mutations tried: SIGTERM that kills the copy; no `undo`; unpacking in place; accepting an archive without its end;
/// removing created directories with their contents.
#[test]
fn a_copy_that_is_broken_off_leaves_nothing_of_it() {
    let Some(machine) = shared() else { return };
    machine.sh("mkdir -p /cut/dir; echo old > /cut/there; echo old > /cut/replaced");
    let items = [
        Item::File("replaced", b"new"),
        Item::Directory("fresh"),
        Item::File("fresh/a", b"A"),
        Item::Link(EntryType::Symlink, "fresh/s", "a"),
        Item::Link(EntryType::Link, "dir/h", "fresh/a"),
        Item::File("deep/er/b", b"B"),
        Item::File("there", &[1; 4000]),
    ];
    let whole: Vec<Item<'_>> = [Item::Directory("./")].into_iter().chain(items).collect();
    let whole = archive(&whole);
    let (in_the_middle, between_entries) = (whole.len() - 1024 - 2048, whole.len() - 1024);
    for (at, length) in [(in_the_middle, "4"), (between_entries, "4000")] {
        assert_eq!(refused(machine, "/cut/.", &whole[..at]).0, OpFailure::BadArchive);
        let found = machine.sh("cd /cut; find . | sort; cat replaced; wc -c < there");
        assert_eq!(found, format!(".\n./dir\n./replaced\n./there\nnew{length}"), "cut at {at}");
        assert_eq!(refused(machine, "/cut/new", &whole[..at]).0, OpFailure::BadArchive);
        assert_eq!(machine.sh("ls -A /cut"), "dir\nreplaced\nthere");
    }

    // What somebody else puts there meanwhile is not the copy's to take away.
    let running = machine.start(Op::CopyIn { id: 0, dest: "/cut/slow".into(), keep_owners: false });
    let tree = archive(&[Item::Directory("src"), Item::File("src/a", b"A"), Item::File("src/b", &[2; 4000])]);
    running.write(&tree[..2048]);
    machine.sh("until [ -e /cut/slow/a ]; do sleep 0.1; done; touch /cut/slow/mine");
    running.end_input();
    assert!(matches!(running.next(), Arrival::Event(OpEvent::Failed { kind: OpFailure::BadArchive, .. })));
    assert_eq!(machine.sh("ls -A /cut/slow; rm -r /cut/slow"), "mine");

    // What a stop sends to every process.
    let running = machine.start(Op::CopyIn { id: 0, dest: "/cut/stopped".into(), keep_owners: false });
    running.write(&tree[..tree.len() - 2048]);
    machine.sh("until ls -A /cut/stopped 2>&1 | grep -q boxlite-copy; do sleep 0.1; done");
    running.signal(libc::SIGTERM);
    assert!(matches!(running.next(), Arrival::Event(OpEvent::Failed { kind: OpFailure::Io, .. })));
    assert_eq!(machine.sh("ls -A /cut; rm -r /cut"), "dir\nreplaced\nthere");
}

#[test]
fn a_tree_goes_out_and_comes_back_the_same() {
    let Some(machine) = shared() else { return };
    let long = "long-name-".repeat(15);
    machine.sh(&format!(
        "mkdir -p /out/d/{long}; cd /out; head -c 300000 /dev/urandom > d/blob; ln d/blob d/hard; ln -s blob d/soft; \
         mkfifo d/fifo; mknod d/node c 1 3; chmod 2751 d/blob; chown 5:6 d/blob; touch d/{long}/x; ln -s d l"
    ));
    let out = copy_out(machine, "/out/d", false).unwrap();
    assert!(matches!(copy_in(machine, "/out/back", true, &out), OpEvent::Copied { .. }));
    let list = |at: &str| {
        machine.sh(&format!(
            "cd {at}; find . | sort | xargs stat -c '%n %F %a %u %g %s %h %t:%T %Y'; sha256sum blob"
        ))
    };
    assert_eq!(list("/out/d"), list("/out/back"));

    let link = copy_out(machine, "/out/l", false).unwrap();
    assert_eq!(names(&link), ["l"]);
    assert_eq!(names(&copy_out(machine, "/out/l", true).unwrap())[..2], ["l", "l/blob"]);
    assert_eq!(names(&copy_out(machine, "/out/d/.", false).unwrap())[1], "blob");
    assert_eq!(copy_out(machine, "/out/none", false), Err(OpFailure::NotFound));
    assert_eq!(copy_out(machine, "/etc/passwd/.", false), Err(OpFailure::WrongKind));
    machine.sh("rm -r /out");
}

/// Mutation tried: zeros written by `make_sparse_file`.
#[test]
fn holes_stay_holes_both_ways() {
    let Some(machine) = shared() else { return };
    machine.sh(
        "mkdir -p /holes; cd /holes; truncate -s 64M s; printf middle | dd of=s bs=1 seek=33554432 conv=notrunc 2>&1; \
         truncate -s 16M empty; chmod 640 s; chown 5:6 s",
    );
    let out = copy_out(machine, "/holes/.", false).unwrap();
    assert!(out.len() < 1 << 20, "{} bytes", out.len());
    machine.sh("mkdir /back");
    assert!(matches!(copy_in(machine, "/back/.", true, &out), OpEvent::Copied { .. }));
    let look =
        |at: &str| machine.sh(&format!("cd {at}; stat -c '%n %s %a %u %g %Y' s empty; sha256sum s empty"));
    assert_eq!(look("/holes"), look("/back"));
    let kib = machine.sh("du -k /back/s /back/empty | awk '{sum += $1} END {print sum}'");
    assert!(kib.trim().parse::<u64>().unwrap() < 256, "{kib} KiB");
    machine.sh("rm -r /holes /back");
}

fn names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn paths_are_described() {
    let Some(machine) = shared() else { return };
    let stat = |path: &str| match machine.ask(Op::Stat { id: 0, path: path.into() }) {
        OpEvent::Stat { stat, .. } => Ok(stat),
        OpEvent::Failed { kind, .. } => Err(kind),
        other => panic!("{other:?}"),
    };
    let link = stat("/bin/sh").unwrap();
    assert_eq!(
        (link.kind, link.link_target.as_deref(), link.leads_to_directory),
        (FileKind::Symlink, Some("busybox"), false)
    );
    let directory = stat("/tmp").unwrap();
    assert_eq!(
        (directory.kind, directory.mode, directory.leads_to_directory),
        (FileKind::Directory, 0o1777, true)
    );
    assert_eq!(stat("/etc/passwd").unwrap().kind, FileKind::File);
    assert_eq!(stat("/dev/null").unwrap().kind, FileKind::Other);
    assert_eq!(stat("/none"), Err(OpFailure::NotFound));
    assert_eq!(stat("relative"), Err(OpFailure::Invalid));
}

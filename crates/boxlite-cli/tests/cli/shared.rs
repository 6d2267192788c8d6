//! What a box may add to a folder of the host, and single files of it, as a user and a hostile guest meet them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::oracle;
use boxlite_testkit::program::Output;

use crate::home::Home;

const MIB: u64 = 1 << 20;

/// Bytes that everything below `folder` has allocated.
fn allocated(folder: &Path) -> u64 {
    let below = |entry: fs::DirEntry| {
        let found = entry.metadata().unwrap();
        found.blocks() * 512 + if found.is_dir() { allocated(&entry.path()) } else { 0 }
    };
    fs::read_dir(folder).unwrap().map(|entry| below(entry.unwrap())).sum()
}

/// Meets the size in every way that a guest's programs have, and frees what it wrote.
const MEET: &str = r#"
cd /data
set -- $(busybox df -k /data | busybox tail -n 1)
echo "df $2 $4"
fill() { busybox dd if=/dev/zero of=$1 bs=64k count=$2 2>/dev/null || echo "full $1"; }
fill one 48
busybox df -k /data | busybox awk 'NR > 1 {print "left", ($4 < 1100 && $4 > 900)}'
fill two 48
fill one 48
busybox rm two
# Neither names nor holes hide anything.
busybox ln one second; busybox rm one; busybox mv second one
fill three 48
busybox dd if=/dev/null of=three bs=1M seek=1024 2>/dev/null && fill four 48
busybox rm -f three four
# An open file without a name still takes its space.
exec 9>held; busybox dd if=/dev/zero bs=64k count=12 >&9 2>/dev/null; busybox rm held
fill five 12
exec 9>&-
fill six 10
busybox rm -f *
fill seven 60
"#;

/// Mutations tried: the ledger begins at 0 at each start (the second start then has room again); an emptied file not credited.
#[test]
fn a_box_adds_to_a_folder_what_its_size_allows_across_restarts() {
    let Some(home) = Home::able() else { return };
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join(".before"), vec![1; 3 * MIB as usize]).unwrap();
    let image = home.image("mini");
    let sized = format!("{}:/data:size=4m", folder.path().display());
    let unsized_one = format!("{}:/other", other.path().display());
    let start = ["run", "-d", "--name", "web", "-v", &sized, "-v", &unsized_one, &image, "sleep", "infinity"];
    Output::of(home.command(start).env("BOXLITE_VOLUME_QUOTA", "1m").spawn().unwrap()).ok();
    assert!(home.run(&["inspect", "web"]).ok().contains(":/data:size=4m"));
    let in_box = |script: &str| home.run(&["exec", "web", "sh", "-c", script]).ok();
    let said = in_box(MEET);
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(
        said,
        ["df 4096 4096", "left 1", "full two", "full three", "full four", "full five"],
        "{said:?}"
    );
    let taken = allocated(folder.path());
    assert!((6 * MIB..=7 * MIB).contains(&taken), "3 MiB were there before: {taken}");
    // The setting is the size of what has none.
    assert_eq!(
        in_box("busybox dd if=/dev/zero of=/other/x bs=64k count=20 2>/dev/null || echo full"),
        "full\n"
    );
    assert!(allocated(other.path()) <= MIB);

    // Another box has a size of its own.
    let second = format!("{}:/data:size=2m", folder.path().display());
    let fill = "busybox dd if=/dev/zero of=/data/second bs=64k count=40 2>/dev/null || echo full; busybox rm -f /data/seven";
    assert_eq!(home.run(&["run", "--rm", "-v", &second, &image, "sh", "-c", fill]).ok(), "full\n");
    assert!(allocated(folder.path()) <= 5 * MIB);

    home.run(&["kill", "web"]).ok();
    home.run(&["wait", "web"]).ok();
    home.run(&["start", "web"]).ok();
    // What another deleted is only seen as far as the folder holds less than this box has added.
    let again = "busybox dd if=/dev/zero of=/data/again bs=64k count=30 2>/dev/null || echo full; busybox rm /data/again";
    assert_eq!(in_box(again), "full\n");
    for name in [".before", "second"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    home.run(&["restart", "web"]).ok();
    assert_eq!(in_box(again), "");
    home.run(&["rm", "-f", "web"]).ok();
}

/// Mutation tried: without the look at the floor the disk is full.
#[test]
fn no_box_writes_to_a_folder_below_the_hosts_floor() {
    let Some(home) = Home::able() else { return };
    if oracle::skip_unless_root("mounting a small filesystem") {
        return;
    }
    let Some(disk) = SmallFilesystem::ext4(64 * MIB, &["-m", "0"]) else { return };
    let volume = format!("{}:/shared", disk.path().display());
    let floors = [
        ("BOXLITE_HARD_FLOOR", "24MiB"),
        ("BOXLITE_SOFT_FLOOR", "24MiB"),
        ("BOXLITE_EMERGENCY_FLOOR", "4MiB"),
        ("BOXLITE_INODE_FLOOR", "100"),
    ];
    let fill = "busybox df -k /shared | busybox awk 'NR > 1 {print $4}'; \
        busybox dd if=/dev/zero of=/shared/file bs=1M count=60 2>/dev/null || echo full; \
        busybox dd if=/dev/zero of=/shared/rest bs=4k count=1000 2>/dev/null || echo full; \
        echo x >/shared/new || echo full; \
        busybox dd if=/dev/zero of=/shared/file bs=1M count=8 conv=notrunc 2>/dev/null && echo over";
    let go_on = "busybox rm /shared/file && echo x >/shared/new && busybox cat /shared/new";
    let free = || {
        let found = rustix::fs::statvfs(disk.path()).unwrap();
        found.f_bavail * found.f_frsize
    };
    let above = (free() - 24 * MIB) / 1024;
    let start = ["run", "-d", "--name", "web", "-v", &volume, &home.image("mini"), "sleep", "infinity"];
    Output::of(home.command(start).envs(floors).spawn().unwrap()).ok();
    let said = home.run(&["exec", "web", "sh", "-c", fill]).ok();
    let lines: Vec<&str> = said.lines().collect();
    let shown: u64 = lines[0].parse().unwrap();
    assert!(shown <= above && shown + 64 >= above, "{shown} of {above}");
    assert_eq!(lines[1..], ["full", "full", "full", "over"], "{said}");
    assert!((24 * MIB..25 * MIB).contains(&free()), "{}", free());
    assert_eq!(home.run(&["exec", "web", "sh", "-c", go_on]).ok(), "x\n");
    home.run(&["rm", "-f", "web"]).ok();
}

const LOOK: &str = r"
busybox cat /etc/app/conf
busybox ls -A /etc/app
(echo changed >>/etc/app/fixed) 2>/dev/null && echo written
busybox rm -f /etc/app/conf 2>/dev/null && echo removed
echo by the box >>/etc/app/conf
# What root of a box can do: ask the device itself for more.
busybox mkdir /tmp/all && busybox mount -t virtiofs volume0 /tmp/all
busybox find /tmp/all | busybox sort
(echo x >/tmp/all/new) 2>/dev/null && echo made
busybox ln -s / /tmp/all/link 2>/dev/null && echo linked
busybox mv /tmp/all/file /tmp/all/moved 2>/dev/null && echo moved
busybox cat /tmp/all/../secret /tmp/all/secret 2>/dev/null
busybox mount -t virtiofs -o remount,rw volume1 /etc/app/fixed 2>/dev/null
(echo changed >>/etc/app/fixed) 2>/dev/null && echo written
true
";

/// Mutation tried: the directory that the file is served from left writable.
#[test]
fn a_single_file_is_shared_and_nothing_beside_it() {
    let Some(home) = Home::able() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("conf"), "from the host\n").unwrap();
    fs::write(at("fixed"), "fixed\n").unwrap();
    fs::write(at("secret"), "secret\n").unwrap();
    let image = home.image("mini");
    let volumes = [
        format!("{}:/etc/app/conf:size=1m", at("conf").display()),
        format!("{}:/etc/app/fixed:ro", at("fixed").display()),
    ];
    let start =
        ["run", "-d", "--name", "web", "-v", &volumes[0], "-v", &volumes[1], &image, "sleep", "infinity"];
    // Without a floor, which what holds the file in memory lies below.
    let floors = [("BOXLITE_HARD_FLOOR", "0"), ("BOXLITE_EMERGENCY_FLOOR", "0")];
    Output::of(home.command(start).envs(floors).spawn().unwrap()).ok();
    let in_box = |script: &str| home.run(&["exec", "web", "sh", "-c", script]).ok();
    let said = in_box(LOOK);
    assert_eq!(said, "from the host\nconf\nfixed\n/tmp/all\n/tmp/all/file\n");
    assert_eq!(fs::read_to_string(at("conf")).unwrap(), "from the host\nby the box\n");
    assert_eq!(fs::read_to_string(at("fixed")).unwrap(), "fixed\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);

    // What the host writes into the file is seen; what it puts in its place only from the next start on.
    fs::write(at("conf"), "in place\n").unwrap();
    assert_eq!(
        in_box("until busybox grep -q place /etc/app/conf; do :; done; busybox cat /etc/app/conf"),
        "in place\n"
    );
    fs::write(at("next"), "renamed\n").unwrap();
    fs::rename(at("next"), at("conf")).unwrap();
    assert_eq!(in_box("busybox cat /etc/app/conf"), "in place\n");
    let full = "busybox dd if=/dev/zero of=/etc/app/conf bs=64k count=40 2>/dev/null || echo full";
    assert_eq!(in_box(full), "full\n");
    home.run(&["restart", "web"]).ok();
    assert_eq!(in_box("busybox cat /etc/app/conf"), "renamed\n");

    home.run(&["stop", "web"]).ok();
    fs::remove_file(at("conf")).unwrap();
    fs::create_dir(at("conf")).unwrap();
    home.run(&["start", "web"]).refused("was a file when the box was created");
    home.run(&["rm", "web"]).ok();
}

//! Whole boxes as single files, from one home to another.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use boxlite_testkit::program::{Output, run};

use crate::disks::overlay;
use crate::home::Home;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn able() -> Option<Home> {
    let home = Home::able()?;
    fs::write(home.path().join("config.toml"), "disk_size = \"128MiB\"\ngrace = \"0s\"\n").unwrap();
    Some(home)
}

/// Checks that the disk holds a filesystem that needs neither repair nor its journal.
fn whole(home: &Home, disk: &Path) {
    run(Command::new("qemu-img").arg("check").arg(disk));
    let flat = home.path().join("flat.img");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(&flat));
    let said = run(Command::new("e2fsck").arg("-fn").arg(&flat));
    assert!(!said.contains("journal"), "nothing is to be recovered: {said}");
    fs::remove_file(flat).unwrap();
}

/// A file is made while somebody writes all the time, imported where neither the image nor the box was ever heard of, and at
/// each step of that killed.
#[test]
fn a_whole_box_moves_to_a_home_without_its_image() {
    let (Some(home), Some(other)) = (able(), able()) else { return };
    let image = home.image("mini");
    home.run(&[
        "run",
        "-d",
        "--name",
        "box",
        "-e",
        "COLOUR=blue",
        "-p",
        "127.0.0.1::80",
        &image,
        "sleep",
        "infinity",
    ])
    .ok();
    let exec = |home: &Home, script: &str| home.run(&["exec", "box", "sh", "-c", script]).ok();
    exec(
        &home,
        "echo one >/root/file; dd if=/dev/urandom of=/root/noise bs=64k count=32 2>/dev/null; md5sum /root/noise >/root/sum",
    );
    exec(&home, "(i=0; while :; do i=$((i+1)); echo $i >>/root/ticks; sleep 0.05; done) >/dev/null 2>&1 &");
    let [file, relative] = ["box.tar", "relative.tar"].map(|name| home.path().join(name));
    let (file, relative) = (file.to_str().unwrap(), relative.to_str().unwrap());
    home.run(&["box", "export", "-o", file, "box"]).ok();
    // The box runs on, with what it wrote; nothing is listed of the moment in which it stood still.
    assert_eq!(exec(&home, "cat /root/file"), "one\n");
    assert_eq!(home.run(&["snapshot", "ls", "-q", "box"]).ok(), "");

    // At each step a kill leaves what gc takes, and no box.
    for step in ["import.writing", "publish.written", "publish.renamed", "create.unrecorded"] {
        let killed = { other.command(["box", "import", file]) }
            .env("BOXLITE_FAULT", format!("{step}=kill"))
            .spawn()
            .unwrap();
        assert_eq!(Output::of(killed).status.signal(), Some(9), "at {step}");
        other.run(&["gc"]).ok();
        assert_eq!(other.run(&["ls", "-aq"]).ok(), "", "at {step}");
        for directory in ["boxes", "images/tmp"] {
            assert_eq!(names(&other.path().join(directory)), [""; 0], "in {directory} at {step}");
        }
    }
    let floors = [("BOXLITE_HARD_FLOOR", "8000TiB"), ("BOXLITE_SOFT_FLOOR", "8000TiB")];
    let refused = { other.command(["box", "import", file]) }.envs(floors).spawn().unwrap();
    Output::of(refused).lacks_room("free");
    let half = fs::read(file).unwrap();
    other.run_with(&["box", "import", "-"], half[..half.len() / 2].to_vec()).refused("cut off");
    assert_eq!(other.run(&["ls", "-aq"]).ok(), "");

    let imported = other.run_with(&["box", "import", "-"], half);
    assert!(imported.err.contains("ports 127.0.0.1::80 are not published"), "{}", imported.err);
    imported.ok();
    whole(&other, &overlay(&other, "box"));
    other.run(&["start", "box"]).ok();
    assert_eq!(
        exec(&other, "cat /root/file; echo $COLOUR; cd /; md5sum -c /root/sum"),
        "one\nblue\n/root/noise: OK\n"
    );
    // A shell by the arguments of an SSH client, in an image without a server.
    let said = other.run(&["ssh", "-o", "BatchMode=yes", "root@box", "pwd;", "echo", "'a  b'"]).ok();
    assert_eq!(said, "/root\na  b\n");
    assert_eq!(other.run(&["ssh", "-T", "box", "exit", "7"]).code(), Some(7));
    // It has snapshots like any other, and what it was made of is nobody's but its own.
    other.run(&["snapshot", "create", "box", "kept"]).ok();
    exec(&other, "echo two >/root/file");
    other.run(&["snapshot", "restore", "-f", "box", "kept"]).ok();
    other.run(&["gc"]).ok();
    other.run(&["start", "box"]).ok();
    assert_eq!(exec(&other, "cat /root/file"), "one\n");
    other.run(&["stop", "-t", "1", "box"]).ok();
    other.run(&["box", "export", "--relative", "box"]).refused("no image");

    // At rest: a name that is taken, and a file that holds only what was written.
    home.run(&["stop", "-t", "1", "box"]).ok();
    home.run(&["box", "export", "--relative", "-o", relative, "box"]).ok();
    let [all, part] = [file, relative].map(|path| fs::metadata(path).unwrap().len());
    assert!(part < all, "{part} of {all} bytes");
    other.run(&["box", "import", "--name", "away", relative]).refused("is not here");
    home.run(&["box", "import", "--name", "box", relative]).refused("taken");
    home.run(&["box", "import", "--name", "copy", relative]).ok();
    let flat = |name: &str| {
        let to = home.path().join(format!("{name}.img"));
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(overlay(&home, name)).arg(&to));
        to
    };
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(flat("box"))
        .arg(flat("copy")));
    home.run(&["rm", "box"]).ok();
    home.run(&["gc"]).ok();
    home.run(&["start", "copy"]).ok();
    assert_eq!(home.run(&["exec", "copy", "cat", "/root/file"]).ok(), "one\n");
}

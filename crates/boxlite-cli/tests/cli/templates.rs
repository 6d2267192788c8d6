//! Boxes restored from a template: as fresh as booted ones, and booted when the template is of no use.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use boxlite_testkit::deadline::eventually;
use rustix::process::{Signal, kill_process};

use crate::home::Home;

const MEMORY: u64 = 128 << 20;

fn templates(home: &Home) -> Vec<PathBuf> {
    let files = fs::read_dir(home.path().join("vm")).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("template-")).collect()
}

/// The first start leaves a mark, the second keeps what it boots.
fn warm(home: &Home) -> PathBuf {
    let image = home.image("mini");
    let start = || home.run(&["run", "--rm", "-m", "128m", &image, "true"]).ok();
    start();
    let marks = templates(home);
    assert_eq!((marks.len(), fs::metadata(&marks[0]).unwrap().len()), (1, 0), "{marks:?}");
    start();
    let path = templates(home).pop().expect("a template");
    assert!(fs::metadata(&path).unwrap().len() > MEMORY);
    path
}

fn detached(home: &Home, name: &str, options: &[&str]) -> String {
    let image = home.image("mini");
    let mut words = vec!["run", "-d", "-m", "128m", "--name", name];
    words.extend(options);
    words.extend([image.as_str(), "sleep", "infinity"]);
    home.run(&words).ok().trim().to_owned()
}

fn is_restored(id: &str) -> bool {
    let (qemu, _) = Home::processes(id).expect("a running box");
    let line = fs::read(format!("/proc/{qemu}/cmdline", qemu = qemu.as_raw_nonzero())).unwrap();
    String::from_utf8_lossy(&line).contains("-incoming")
}

/// What the box `name` says of how its guest came up.
fn guest_start(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0]["guest_start"].clone()
}

/// Mutation tried: no address set, so that all have that of the first. (Without a new seed the numbers differ all the same
/// where the processor has RDRAND.)
#[test]
fn restored_boxes_share_nothing_that_should_be_their_own() {
    let Some(home) = Home::able() else { return };
    let path = warm(&home);
    let before = fs::metadata(&path).unwrap();
    assert!(before.blocks() * 512 < MEMORY, "sparse: {}", before.blocks() * 512);

    // Before the kernel mixes in anything by itself.
    let mut drawn = BTreeSet::new();
    let image = home.image("mini");
    let at_once = ["run", "--rm", "-m", "128m", &image, "cat", "/proc/sys/kernel/random/uuid"];
    drawn.extend([home.run(&at_once).ok(), home.run(&at_once).ok()]);

    for name in ["one", "two", "three"] {
        let id = detached(&home, name, &["--disk-size", "20G"]);
        assert!(is_restored(&id), "{name}");
        let sh = |script: &str| home.run(&["exec", name, "sh", "-c", script]).ok();
        let random = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; \
                      head -c 16 /dev/urandom | od -An -tx1";
        drawn.extend(sh(random).lines().map(str::to_owned));
        drawn.insert(sh("cat /sys/class/net/eth0/address"));
        assert_eq!(sh("hostname").trim(), &id[..12]);
        let clock: u64 = sh("date +%s").trim().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(clock) < 5, "the box's clock says {clock} at {now}");
        // Another clock loses time, in each box that is restored from such a template. The kernel calls this one early for
        // the first second.
        let clocksource = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let clock = home.run(&["exec", name, "cat", clocksource]).ok();
        assert!(["tsc\n", "tsc-early\n"].contains(&&*clock), "{clock}");
        let blocks: u64 = sh("cat /sys/class/block/vda/size").trim().parse().unwrap();
        assert_eq!(blocks * 512, 20 << 30);
        // Its writes are its own, and whole.
        sh(&format!("dd if=/dev/urandom of=/blob bs=1M count=8 2>/dev/null; echo {name} >/note; sync"));
        home.run(&["exec", name, "ping", "-c", "1", "-W", "30", "10.0.2.2"]).ok();
    }
    assert_eq!(drawn.len(), 14, "{drawn:?}");
    for name in ["one", "two", "three"] {
        assert_eq!(home.run(&["exec", name, "cat", "/note"]).ok().trim(), name);
        home.run(&["stop", "-t", "0", name]).ok();
        home.run(&["start", name]).ok();
        assert_eq!(home.run(&["exec", name, "cat", "/note"]).ok().trim(), name);
    }
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()), "nobody wrote to it");
    let gc = home.run(&["gc", "--all", "--format", "json"]).json();
    assert_eq!(gc["failures"], serde_json::json!([]));
    assert!(path.exists(), "in use, and lately used");
}

/// Bytes of the pages that the QEMU of the box `id` has of its own, instead of its template's.
fn own_pages(id: &str) -> u64 {
    let (qemu, _) = Home::processes(id).expect("a running box");
    let maps = fs::read_to_string(format!("/proc/{}/smaps", qemu.as_raw_nonzero())).unwrap();
    let mut is_memory = false;
    let mut own = 0;
    for line in maps.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if !word.ends_with(':') {
            is_memory = line.contains("/vm/template-");
        } else if is_memory && word == "Private_Dirty:" {
            own += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10;
        }
    }
    own
}

#[test]
fn what_a_guest_frees_returns_to_the_host_and_the_template_stays_as_it_was() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    // A smaller guest has too little free memory to report any.
    let start = |words: &[&str]| home.run(&[&["run", "-m", "256m"], words].concat()).ok();
    start(&["--rm", &image, "true"]);
    start(&["--rm", &image, "true"]);
    let path = templates(&home).pop().expect("a template");
    let before = fs::read(&path).unwrap();
    let id = start(&["-d", "--name", "one", &image, "sleep", "infinity"]).trim().to_owned();
    assert!(is_restored(&id));
    let at_rest = own_pages(&id);
    assert!(at_rest < 16 << 20, "{at_rest}");
    // It holds its buffer for as long as nobody reads what it writes.
    home.run(&["exec", "-d", "one", "sh", "-c", "dd if=/dev/zero bs=100M count=1 | sleep 100000"]).ok();
    let in_use = at_rest + (95 << 20);
    eventually("the buffer to be filled", || (own_pages(&id) > in_use).then_some(()));
    home.run(&["exec", "one", "killall", "dd"]).ok();
    eventually("what was freed to be the host's", || (own_pages(&id) < in_use - (70 << 20)).then_some(()));
    // The guest can use the returned memory again.
    home.run(&["exec", "one", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]).ok();
    assert!(fs::read(&path).unwrap() == before, "a hole was punched into the template");
}

/// Mutations tried: no discarding (the next one tries again), of a template whose guest does not come up either; discarding
/// whatever went wrong.
#[test]
fn a_template_that_is_of_no_use_is_discarded_and_the_box_boots() {
    let Some(home) = Home::able() else { return };
    let path = warm(&home);
    // As if its device state had been another's.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0x5a; 4096], MEMORY).unwrap();
    let id = detached(&home, "one", &[]);
    assert!(!is_restored(&id));
    assert_eq!(home.run(&["exec", "one", "echo", "up"]).ok(), "up\n");
    assert!(!path.exists());
    home.run(&["rm", "-f", "one"]).ok();

    // And it is made again. One whose guest does not come up fails its box, and no other.
    assert_eq!(warm(&home), path);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; MEMORY as usize], 0).unwrap();
    let image = home.image("mini");
    home.run(&["run", "--name", "dead", "-m", "128m", &image, "true"]).refused("did not come up");
    assert!(!path.exists());
    home.run(&["start", "-a", "dead"]).ok();
    home.run(&["rm", "dead"]).ok();

    // A box that has troubles of its own takes no template from others.
    home.run(&["run", "--rm", "-m", "128m", &image, "true"]).ok();
    assert!(fs::metadata(&path).unwrap().len() > MEMORY);
    home.run(&["create", "--name", "odd", "-m", "128m", &image, "true"]).ok();
    home.run(&["cp", "/etc/hostname", "odd:/etc/copied"]).ok();
    let overlay = fs::read_dir(home.path().join("boxes"))
        .unwrap()
        .flatten()
        .find_map(|entry| fs::read_dir(entry.path().join("disks")).ok()?.flatten().next());
    let overlay = File::options().write(true).open(overlay.unwrap().path()).unwrap();
    // The offset of its refcount table (qcow2, byte 48 of the header).
    overlay.write_all_at(&[0xff; 8], 48).unwrap();
    home.run(&["start", "odd"]).refused("");
    home.run(&["rm", "odd"]).ok();
    assert!(is_restored(&detached(&home, "two", &[])));

    // One that vanished after it was found, and one that nobody wants.
    fs::remove_file(&path).unwrap();
    assert!(!is_restored(&detached(&home, "three", &[])));
    fs::write(home.path().join("config.toml"), "templates = false\n").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!is_restored(&detached(&home, "four", &[])));
    assert_eq!(templates(&home), Vec::<PathBuf>::new());
}

#[test]
fn other_hardware_has_templates_of_its_own() {
    let Some(home) = Home::able() else { return };
    warm(&home);
    let id = detached(&home, "bare", &["--network", "none"]);
    assert!(!is_restored(&id));
    let id = detached(&home, "wide", &["--cpus", "2"]);
    assert!(!is_restored(&id));
    assert_eq!(templates(&home).len(), 3);
    let shared = tempfile::tempdir().unwrap();
    let id = detached(&home, "sharing", &["-v", &format!("{}:/shared", shared.path().display())]);
    assert!(!is_restored(&id));
    assert_eq!(templates(&home).len(), 4);
    // Two processors are restored as well as one.
    for name in ["wide-2", "wide-3"] {
        let id = detached(&home, name, &["--cpus", "2"]);
        assert_eq!(is_restored(&id), name == "wide-3");
        assert_eq!(home.run(&["exec", name, "nproc"]).ok(), "2\n");
    }
}

/// A template knows how many named volumes a box has, and nothing of what is in them.
///
/// Mutation tried: boxes with named volumes booted.
#[test]
fn a_box_with_named_volumes_is_restored_and_sees_its_own() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let run = |volumes: &[&str], script: &str| {
        let mut words = vec!["run", "--rm", "-m", "128m"];
        for volume in volumes {
            words.extend(["-v", volume]);
        }
        words.extend([&*image, "sh", "-c", script]);
        home.run(&words).ok()
    };
    // Of the first two starts, the second is kept, with a volume that has something in it.
    run(&["first:/data"], "echo secret >/data/note; sync");
    run(&["first:/data"], "cat /data/note; dd if=/dev/zero of=/data/large bs=1M count=4 2>/dev/null; sync");
    let path = templates(&home).pop().expect("a template");
    let before = fs::read(&path).unwrap();
    assert!(!before.windows(7).any(|bytes| bytes == b"secret\n"), "a volume's bytes are in the template");

    let id = detached(&home, "one", &["-v", "second:/data"]);
    assert!(is_restored(&id));
    assert_eq!(home.run(&["exec", "one", "ls", "/data"]).ok(), "");
    home.run(&["exec", "one", "sh", "-c", "echo two >/data/note; sync"]).ok();
    // The other volume, at once, in another box of the same template.
    let other = detached(&home, "two", &["-v", "first:/data"]);
    assert!(is_restored(&other));
    assert_eq!(home.run(&["exec", "two", "cat", "/data/note"]).ok(), "secret\n");
    home.run(&["exec", "two", "sh", "-c", "echo more >>/data/note; sync"]).ok();
    home.run(&["run", "--rm", "-m", "128m", "-v", "first:/data", &image, "true"]).refused("box two");
    home.run(&["rm", "-f", "one"]).ok();
    home.run(&["rm", "-f", "two"]).ok();
    assert_eq!(run(&["first:/data"], "cat /data/note; ls -l /data/large | wc -l"), "secret\nmore\n1\n");
    assert_eq!(run(&["second:/data"], "cat /data/note"), "two\n");
    assert!(fs::read(&path).unwrap() == before, "a box wrote to the template");

    // Another set of disks is another machine: one that may not be written to.
    let read_only = ["-v", "first:/data:ro"];
    let id = detached(&home, "reader", &read_only);
    assert!(!is_restored(&id));
    let reads = "cat /data/note; touch /data/x 2>/dev/null || echo refused";
    assert_eq!(home.run(&["exec", "reader", "sh", "-c", reads]).ok(), "secret\nmore\nrefused\n");
    assert_eq!(templates(&home).len(), 2);
}

/// Nine folders take two ports. All that a box with them writes to its memory is its own, and the template stays as it was.
///
/// Mutations tried: boxes with shares booted; the first function of a port plugged in first; ports with a power switch; the template
/// itself mapped with `share=on`, which the jail refuses, so that the box boots.
#[test]
fn shares_are_plugged_into_a_restored_box() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let host = tempfile::tempdir().unwrap();
    // What a box has of `name`: seven directories that it may write to, one that it may not, and a file.
    let folders = |name: &str| -> Vec<String> {
        let at = host.path().join(name);
        let mut options = Vec::new();
        for number in 0..8 {
            let directory = at.join(number.to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("note"), format!("secret of {name} {number}\n")).unwrap();
            let access = if number == 7 { ":ro" } else { "" };
            options.extend(["-v".into(), format!("{}:/shared/{number}{access}", directory.display())]);
        }
        fs::write(at.join("file"), "a file\n").unwrap();
        options.extend(["-v".into(), format!("{}:/etc/given", at.join("file").display())]);
        options
    };
    let with = |name: &str, before: &[&str], after: &[&str]| -> Vec<String> {
        let words = ["run", "-m", "128m"].iter().chain(before).map(ToString::to_string);
        words.chain(folders(name)).chain(after.iter().map(ToString::to_string)).collect()
    };
    let run = |words: Vec<String>| home.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let all = |name: &str| {
        let notes = (0..8).map(|number| format!("secret of {name} {number}\n"));
        notes.chain(["a file\n".into()]).collect::<String>()
    };
    let read = "cat /shared/?/note /etc/given; touch /shared/7/x 2>/dev/null || echo refused; echo box >/shared/3/box";
    // The second is kept, and gets its folders after that.
    for name in ["first", "second"] {
        let read = run(with(name, &["--rm"], &[&image, "sh", "-c", read]));
        assert_eq!(read, all(name) + "refused\n");
        assert_eq!(fs::read_to_string(host.path().join(name).join("3/box")).unwrap(), "box\n");
    }
    let path = templates(&home).pop().expect("a template");
    let before = fs::read(&path).unwrap();
    assert!(before.len() as u64 > MEMORY, "the second start kept nothing");
    assert!(!before.windows(9).any(|bytes| bytes == b"secret of"), "a folder's bytes are in the template");

    let mut drawn = BTreeSet::new();
    for name in ["one", "two"] {
        let id = run(with(name, &["-d", "--name", name], &[&image, "sleep", "infinity"])).trim().to_owned();
        assert!(is_restored(&id), "{name}");
        assert_eq!(guest_start(&home, name), serde_json::json!({ "restored": true, "reason": null }));
        let (qemu, _) = Home::processes(&id).expect("a running box");
        let maps = fs::read_to_string(format!("/proc/{}/maps", qemu.as_raw_nonzero())).unwrap();
        assert!(!maps.contains("/vm/template-"), "a process of the box could write to the template: {maps}");
    }
    for name in ["one", "two"] {
        let sh = |script: &str| home.run(&["exec", name, "sh", "-c", script]).ok();
        assert_eq!(sh(read), all(name) + "refused\n");
        drawn.extend(
            sh("cat /proc/sys/kernel/random/uuid /sys/class/net/eth0/address").lines().map(str::to_owned),
        );
        // Its memory is its own, and whole.
        let sums = sh("head -c 20m /dev/urandom >/shared/0/large; sync; sha256sum </shared/0/large");
        let large = host.path().join(name).join("0/large");
        assert_eq!(fs::metadata(&large).unwrap().len(), 20 << 20);
        let sum =
            std::process::Command::new("sha256sum").stdin(File::open(&large).unwrap()).output().unwrap();
        assert_eq!(sums, String::from_utf8(sum.stdout).unwrap());
    }
    assert_eq!(drawn.len(), 4, "{drawn:?}");
    home.run(&["rm", "-f", "two"]).ok();
    // And once more, of the same box.
    home.run(&["stop", "-t", "0", "one"]).ok();
    home.run(&["start", "one"]).ok();
    assert_eq!(home.run(&["exec", "one", "cat", "/shared/6/note"]).ok(), "secret of one 6\n");
    home.run(&["rm", "-f", "one"]).ok();
    assert!(fs::read(&path).unwrap() == before, "a box wrote to the template");

    // Where QEMU does not take the template, the box boots and has its folders from the start, and says why.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0x5a; 4096], MEMORY).unwrap();
    let id = run(with("three", &["-d", "--name", "three"], &[&image, "sleep", "infinity"])).trim().to_owned();
    assert!(!is_restored(&id) && !path.exists());
    let start = guest_start(&home, "three");
    assert!(start["reason"].as_str().unwrap().starts_with("it could not be restored: "), "{start}");
    assert_eq!(home.run(&["exec", "three", "sh", "-c", read]).ok(), all("three") + "refused\n");
}

/// Killed while the guest is kept: nothing of it stays once gc has run, and the next start keeps it.
#[test]
fn a_kill_while_a_template_is_made_leaves_nothing() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "--rm", "-m", "128m", &image, "true"]).ok();
    let staged = |tmp: &Path| fs::read_dir(tmp).unwrap().flatten().any(|entry| is_partial(&entry.path()));
    let tmp = home.path().join("images/tmp");
    let id = detached(&home, "one", &[]);
    let (_, shim) = Home::processes(&id).expect("a shim");
    let is_made = || templates(&home).iter().any(|path| fs::metadata(path).unwrap().len() > 0);
    eventually("a template to be begun", || (staged(&tmp) || is_made()).then_some(()));
    kill_process(shim, Signal::KILL).unwrap();
    eventually("its box to be gone", || {
        let info = home.run(&["inspect", "one"]).json();
        (info[0]["state"] == "failed").then_some(())
    });
    assert_eq!(home.run(&["gc", "--format", "json"]).json()["failures"], serde_json::json!([]));
    assert!(!staged(&tmp));
    let path = templates(&home).pop().unwrap();
    home.run(&["start", "one"]).ok();
    eventually("the template", || (fs::metadata(&path).unwrap().len() > MEMORY).then_some(()));
    assert_eq!(home.run(&["exec", "one", "echo", "up"]).ok(), "up\n");
}

fn is_partial(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with("template-")
}

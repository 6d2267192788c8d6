//! `cp` both ways, with boxes that run and boxes that do not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;

use crate::home::Home;

#[test]
fn files_are_copied_both_ways_by_docker_s_rules() {
    let Some(home) = Home::able() else { return };
    home.sleeper("disk");
    let here = tempfile::tempdir().unwrap();
    let at = |path: &str| here.path().join(path).to_str().unwrap().to_owned();
    let inside = |script: &str| home.run(&["exec", "disk", "sh", "-c", script]).ok();
    fs::create_dir_all(at("tree/sub")).unwrap();
    fs::write(at("tree/sub/file"), "contents\n").unwrap();
    symlink("sub/file", at("tree/link")).unwrap();
    fs::write(at("one"), "first\n").unwrap();

    inside("mkdir -p /srv /opt /var");
    home.run(&["cp", &at("one"), "disk:/tmp"]).ok();
    home.run(&["cp", &at("one"), "disk:tmp/renamed"]).ok();
    assert_eq!(inside("cat /tmp/one /tmp/renamed"), "first\nfirst\n");
    home.run(&["cp", &at("tree"), "disk:/srv"]).ok();
    home.run(&["cp", &at("tree"), "disk:/srv/new"]).ok();
    home.run(&["cp", &at("tree/."), "disk:/opt"]).ok();
    let listing =
        inside("cd /; find srv opt -type f | sort; readlink srv/tree/link; stat -c %u srv/tree/sub/file");
    assert_eq!(listing, "opt/sub/file\nsrv/new/sub/file\nsrv/tree/sub/file\nsub/file\n0\n");
    home.run(&["cp", &at("one"), "disk:/no/such/place/"]).refused("/no/such/place");
    home.run(&["cp", &at("missing"), "disk:/tmp"]).refused("missing");

    inside("mkdir -p /data/deep; head -c 3000000 /dev/urandom >/data/deep/noise; chmod 640 /data/deep/noise");
    home.run(&["cp", "disk:/data", &at("as")]).ok();
    home.run(&["cp", "disk:/data/", &at("tree")]).ok();
    home.run(&["cp", "disk:/data/.", &at("contents")]).ok();
    home.run(&["cp", "disk:/data/deep/noise", &at("noise")]).ok();
    let sum = inside("sha256sum </data/deep/noise");
    for copy in ["as/deep/noise", "tree/data/deep/noise", "contents/deep/noise", "noise"] {
        let output =
            std::process::Command::new("sha256sum").stdin(fs::File::open(at(copy)).unwrap()).output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), sum, "{copy}");
    }
    home.run(&["cp", "disk:/data", &at("one")]).refused("is a file");
    home.run(&["cp", "disk:/data/deep/noise", &at("absent/")]).refused("does not exist");
    home.run(&["cp", "disk:/not/there", &at("x")]).refused("/not/there");
    assert_eq!(fs::read_to_string(at("one")).unwrap(), "first\n");

    let tar = home.run(&["cp", "disk:/data/deep", "-"]);
    assert_eq!(tar.code(), Some(0));
    assert_eq!(home.run_with(&["cp", "-", "disk:/var"], tar.out).ok(), "");
    assert_eq!(inside("sha256sum </var/deep/noise"), sum);

    let tar =
        std::process::Command::new("tar").args(["-C", &at("."), "-cf", "-", "one", "tree"]).output().unwrap();
    inside("mkdir /several");
    home.run_with(&["cp", "-", "disk:/several"], tar.stdout.clone()).ok();
    assert_eq!(inside("cd /several; cat one tree/sub/file"), "first\ncontents\n");
    home.run_with(&["cp", "-", "disk:/absent"], tar.stdout).refused("/absent");
    assert_eq!(inside("ls / | grep -c absent || true"), "0\n");

    home.run(&["cp", &at("one"), &at("two")]).refused("in a box");
    home.run(&["cp", "disk:/tmp/one", "disk:/tmp/two"]).refused("two boxes");
    home.run(&["cp", &at("one"), "nobody:/tmp"]).refused("nobody");
}

/// The output of `inspect` for a box, without the fields that a copy may change.
fn shown(home: &Home, name: &str) -> serde_json::Value {
    let mut info = home.run(&["inspect", name]).json()[0].take();
    info.as_object_mut().expect("a box").remove("disk_allocated");
    info
}

/// Mutations tried: the last run's log begun anew; the last run's end not written down before its outcome is replaced.
#[test]
fn boxes_that_rest_are_copied_to_and_from_and_rest_all_the_same() {
    let Some(home) = Home::able() else { return };
    let here = tempfile::tempdir().unwrap();
    let at = |path: &str| here.path().join(path).to_str().unwrap().to_owned();
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/script"), "cat /etc/tree/word; echo out; exit 7\n").unwrap();
    fs::write(at("tree/word"), "hello\n").unwrap();
    // Another's port, which a copy does not need.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    home.run(&["create", "--name", "rest", "-p", &port, &home.image("mini"), "sh", "/etc/tree/script"]).ok();

    let created = shown(&home, "rest");
    assert_eq!(created["state"], "created");
    home.run(&["exec", "rest", "true"]).refused("not running");
    home.run(&["cp", &at("tree"), "rest:/etc"]).ok();
    home.run(&["cp", &at("missing"), "rest:/etc"]).refused("missing");
    home.run(&["cp", "rest:/not/there", &at("x")]).refused("/not/there");
    assert_eq!(shown(&home, "rest"), created);
    assert!(Home::processes(created["id"].as_str().unwrap()).is_none(), "nothing runs");

    drop(taken);
    let output = home.run(&["start", "-a", "rest"]);
    assert_eq!((output.code(), output.text().as_str()), (Some(7), "hello\nout\n"), "{output:?}");
    // While how it ended is known by its outcome alone.
    let ended = shown(&home, "rest");
    home.run(&["cp", "rest:/etc/tree/word", &at("back")]).ok();
    assert_eq!(fs::read_to_string(at("back")).unwrap(), "hello\n");
    assert_eq!(shown(&home, "rest"), ended);
    assert_eq!((ended["state"].as_str(), ended["exit_code"].as_i64()), (Some("stopped"), Some(7)));
    assert_eq!(home.run(&["logs", "rest"]).ok(), "hello\nout\n");

    // Several at once take turns, and so does a start.
    let word = at("tree/word");
    let copies: Vec<_> =
        ["a", "b", "c"].map(|name| home.start(&["cp", &word, &format!("rest:/etc/tree/{name}")])).into();
    let started = home.start(&["start", "rest"]);
    for copy in copies.into_iter().chain([started]) {
        Output::of(copy).ok();
    }
    home.run(&["wait", "rest"]).ok();
    let tar = home.run(&["cp", "rest:/etc/tree", "-"]);
    assert_eq!(tar.code(), Some(0));
    home.run_with(&["cp", "-", "rest:/tmp"], tar.out).ok();
    home.run(&["cp", "rest:/tmp/tree", &at("all")]).ok();
    let mut names: Vec<_> =
        fs::read_dir(at("all")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "script", "word"]);
}

/// Mutation tried: a guest that stays although nobody is connected.
#[test]
fn a_copy_that_is_killed_leaves_a_box_that_rests() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "rest", &home.image("mini"), "true"]).ok();
    let before = shown(&home, "rest");
    let id = before["id"].as_str().unwrap();
    let mut child =
        home.command(["cp", "-", "rest:/etc"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let guest = eventually("the guest", || Home::processes(id));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the guest's end", || Home::processes(id).is_none().then_some(()));
    let gone = |pid| rustix::process::test_kill_process(pid).is_err();
    eventually("its shim's end", || (gone(guest.0) && gone(guest.1)).then_some(()));
    assert_eq!(shown(&home, "rest"), before);
    home.run(&["start", "-a", "rest"]).ok();
}

/// Neither who writes nor who reads an archive, and does not, keeps the box: not even when told as the guest comes up.
#[test]
fn a_copy_that_stalls_keeps_nobody_from_ending_it() {
    let Some(home) = Home::able() else { return };
    let big = tempfile::tempdir().unwrap();
    let word = big.path().join("big");
    fs::write(&word, vec![7; 20 << 20]).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-C", big.path().to_str().unwrap(), "-cf", "-", "big"])
        .output()
        .unwrap()
        .stdout;
    let id = home.run(&["create", "--name", "rest", &home.image("mini"), "true"]).ok();
    let stalled_in = || {
        let mut child =
            home.command(["cp", "-", "rest:/etc"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&tar[..1 << 20]).unwrap();
        eventually("the guest", || Home::processes(id.trim()));
        (child, stdin)
    };
    let (child, stdin) = stalled_in();
    home.run(&["stop", "rest"]).ok();
    Output::of(child).refused("");
    drop(stdin);
    assert_eq!(shown(&home, "rest")["state"], "created");

    home.run(&["cp", word.to_str().unwrap(), "rest:/etc/big"]).ok();
    let child = home.start(&["cp", "rest:/etc/big", "-"]);
    eventually("the guest", || Home::processes(id.trim()));
    home.run(&["stop", "rest"]).ok();
    Output::of(child).refused("");

    let (child, stdin) = stalled_in();
    home.run(&["rm", "-f", "rest"]).ok();
    Output::of(child).refused("");
    drop(stdin);
    assert!(Home::processes(id.trim()).is_none());
}

//! Several servers behind one front: real ones, each with a home of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline::eventually;
use boxlite_testkit::filesystem::SmallFilesystem;
use rustix::process::Signal;

use crate::home::{Home, on_any_disk, program};
use crate::reach::Reach;

#[test]
fn boxes_are_found_wherever_they_are_and_a_server_that_is_down_stops_nobody() {
    let (Some(a), Some(b)) = (Home::able(), Home::able()) else { return };
    let urls = [a.reach().url(), b.reach().url()];
    let fleet = urls.join(",");
    let all = |arguments: &[&str]| a.run(&[&["--url", &fleet], arguments].concat());
    all(&["images"]).refused("name one with --url");
    assert_eq!(all(&["ls", "-aq"]).ok(), "");

    a.sleeper("one");
    b.sleeper("two");
    let listed = all(&["ls"]).ok();
    for (name, url) in [("one", &urls[0]), ("two", &urls[1])] {
        let line = listed.lines().find(|line| line.split_whitespace().any(|word| word == name));
        assert!(line.is_some_and(|line| line.contains(&**url)), "{listed}");
    }
    assert!(listed.lines().next().unwrap().contains("NODE"), "{listed}");
    assert!(!a.run(&["ls"]).ok().contains("NODE"), "one server needs no column");
    let nodes = all(&["ls", "--format", "json"]).json();
    let nodes: Vec<&str> =
        nodes.as_array().unwrap().iter().map(|info| info["node"].as_str().unwrap()).collect();
    assert!(nodes.contains(&&*urls[0]) && nodes.contains(&&*urls[1]), "{nodes:?}");

    for name in ["one", "two"] {
        all(&["exec", name, "sh", "-c", &format!("echo {name} >/tmp/who")]).ok();
        assert_eq!(all(&["exec", name, "cat", "/tmp/who"]).ok(), format!("{name}\n"));
        let copied = a.path().join(format!("copied-{name}"));
        all(&["cp", &format!("{name}:/tmp/who"), copied.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&copied).unwrap(), format!("{name}\n"));
        let id = all(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(all(&["inspect", &id[..10]]).json()[0]["name"], name);
        all(&["logs", name]).ok();
    }
    all(&["inspect", "three"]).refused("no box 'three'");
    all(&["create", "--name", "two", &a.image("mini"), "true"]).refused(&urls[1]);

    // The same name, given on each server by itself.
    let twins =
        [&a, &b].map(|home| home.run(&["create", "--name", "twin", &home.image("mini"), "true"]).ok());
    let said = all(&["rm", "twin"]).refused("ambiguous");
    assert!(urls.iter().all(|url| said.contains(url.as_str())), "{said}");
    all(&["rm", twins[1].trim()]).ok();
    all(&["rm", "twin"]).ok();
    all(&["stop", "-t", "0", "two"]).ok();
    all(&["start", "two"]).ok();

    // A new box goes to one of them, and a list in a file does as well.
    let list = a.path().join("servers");
    fs::write(&list, format!("# of the lab\n{}\n{}\n", urls[0], urls[1])).unwrap();
    let at = format!("@{}", list.display());
    let ran = a.run(&["--url", &at, "run", "--rm", &a.image("mini"), "echo", "somewhere"]);
    assert_eq!(ran.ok(), "somewhere\n");
    assert_eq!(all(&["ls", "-aq"]).ok().lines().count(), 2);

    b.reach().signal(Signal::TERM);
    eventually("the server to be gone", || b.reach().has_ended().then_some(()));
    let half = all(&["ls"]);
    assert!(half.err.contains(&format!("server {} is left out", urls[1])), "{}", half.err);
    assert_eq!(half.err.matches("left out").count(), 1, "{}", half.err);
    assert!(half.ok().contains("one"));
    assert_eq!(all(&["exec", "one", "cat", "/tmp/who"]).ok(), "one\n");
    all(&["exec", "two", "true"]).refused(&urls[1]);
    let one = a.run(&["inspect", "one"]).json()[0]["id"].as_str().unwrap().to_owned();
    all(&["exec", &one, "true"]).ok();
    all(&["rm", "-f", &one[..8]]).refused(&urls[1]);
    // The server that is down may have another "one", which is the one that is meant.
    let doubtful = all(&["rm", "-f", "one"]).refused(&one);
    assert!(doubtful.contains(&urls[1]), "{doubtful}");
    all(&["snapshot", "rm", "one", "none"]).refused(&one);
    assert_eq!(all(&["exec", "one", "cat", "/tmp/who"]).ok(), "one\n", "what can be undone goes on by name");
    let still = all(&["run", "--rm", &a.image("mini"), "echo", "here"]);
    assert_eq!(still.ok(), "here\n");
    all(&["rm", "-f", &one]).ok();
    assert_eq!(all(&["ls", "-aq"]).ok(), "");
    a.reach().signal(Signal::TERM);
    eventually("the server to be gone", || a.reach().has_ended().then_some(()));
    all(&["ls"]).refused("none of the servers can be asked");
    assert!(local(b.path()).args(["rm", "-f", "two"]).status().unwrap().success());
}

/// A command on a home of this host.
fn local(home: &Path) -> Command {
    let mut command = Command::new(program());
    on_any_disk(&mut command);
    command.env("BOXLITE_HOME", home).env_remove("BOXLITE_REST_URL").stdout(Stdio::null());
    command
}

/// A home at `path` with these settings.
fn home_with(path: &Path, settings: &str) -> PathBuf {
    assert!(local(path).args(["images", "-q"]).status().unwrap().success());
    fs::write(path.join("config.toml"), settings).unwrap();
    path.to_owned()
}

/// The memory of the host that boxes may be promised in percent, so that about `bytes` may be.
fn share(bytes: u64) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = text.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    bytes * 100 / (kib * 1024)
}

/// `wide` has most room by its word, but too little memory for this box, which only its start finds out: it goes to `small`, a
/// disk of 1.8 GiB, until that is filled; then it is refused with 75.
#[test]
fn a_box_goes_to_the_server_with_most_room_and_to_the_next_when_that_refuses_it() {
    let Some(client) = Home::able() else { return };
    let Some(assets) = Assets::require() else { return };
    let Some(disk) = SmallFilesystem::ext4(1800 << 20, &["-m", "0"]) else { return };
    let wide_home = tempfile::tempdir().unwrap();
    let common = "templates = false\nflush_reserve = 0\n";
    let memory = share(1650 << 20);
    let wide = home_with(&wide_home.path().join("home"), &format!("{common}memory_share = {memory}\n"));
    let floors =
        "hard_floor = \"64MiB\"\nsoft_floor = \"65MiB\"\nemergency_floor = \"32MiB\"\ninode_floor = 100\n";
    let small = home_with(&disk.path().join("home"), &format!("{common}{floors}memory_share = 300\n"));
    let (wide, small) = (Reach::of(&wide, Some(&assets)), Reach::of(&small, Some(&assets)));
    let fleet = format!("{},{}", wide.url(), small.url());
    let all = |arguments: &[&str]| client.run(&[&["--url", &fleet], arguments].concat());

    let image = client.image("mini");
    let id = all(&["create", &image, "true"]).ok();
    let found = all(&["ls", "-a", "--no-trunc", "--format", "json"]).json();
    assert_eq!((found[0]["id"].as_str(), found[0]["node"].as_str()), (Some(id.trim()), Some(&*wide.url())));
    all(&["rm", id.trim()]).ok();

    let id_file = client.path().join("id");
    let large = ["run", "-d", "--name", "large", "-m", "1700m", "--cidfile", id_file.to_str().unwrap()];
    let ran = all(&[&large[..], &[&image, "sleep", "infinity"]].concat());
    let id = ran.text();
    ran.ok();
    assert_eq!(fs::read_to_string(&id_file).unwrap(), id.trim());
    let found = all(&["ls", "-a", "--no-trunc", "--format", "json"]).json();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!((found[0]["id"].as_str(), found[0]["node"].as_str()), (Some(id.trim()), Some(&*small.url())));
    assert_eq!(all(&["exec", "large", "echo", "here"]).ok(), "here\n");
    all(&["rm", "-f", "large"]).ok();

    let filler = disk.path().join("filler");
    let status = Command::new("fallocate").args(["-l", "1550M"]).arg(&filler).status().unwrap();
    assert!(status.success());
    let refused = all(&["run", "--rm", "-m", "1700m", &image, "true"]);
    refused.lacks_room("");
    assert_eq!(all(&["ls", "-aq"]).ok(), "", "nothing is left of it");
    let room = all(&["run", "--rm", &image, "echo", "there"]);
    assert_eq!(room.ok(), "there\n", "a small box goes where there is room");
    fs::remove_file(&filler).unwrap();
    drop((wide, small));
}

//! Boxes that end by themselves because nobody uses them, and go because they have ended.

use std::time::{Duration, Instant};

use boxlite_testkit::deadline::eventually;

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

/// Mutation tried: a box with a session that counts as unused ends before its command.
#[test]
fn a_box_that_nobody_uses_is_stopped_and_one_in_use_is_not() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let options = ["run", "-d", "--idle-timeout", "3s", "--restart", "always"];
    home.run(&[&options[..], &["--name", "idle", &image, "sleep", "infinity"]].concat()).ok();
    home.run(&[&options[..], &["--name", "busy", &image, "sh", "-c", "while :; do :; done"]].concat()).ok();
    home.run(&[&options[..], &["--name", "used", &image, "sleep", "infinity"]].concat()).ok();
    let session = home.start(&["exec", "used", "sleep", "8"]);
    eventually("the idle box to end", || (inspect(&home, "idle")["state"] == "stopped").then_some(()));
    let info = inspect(&home, "idle");
    assert!(info["reason"].as_str().unwrap().starts_with("idle: nobody used the box for 3 s"), "{info}");
    assert_eq!(info["restart_count"], 0, "{info}");
    boxlite_testkit::program::Output::of(session).ok();
    assert_eq!(inspect(&home, "busy")["state"], "running");
    eventually("the used box to end", || (inspect(&home, "used")["state"] == "stopped").then_some(()));
    home.run(&["create", "--idle-timeout", "0", &image]).refused("0 s would stop the box at once");
}

/// Mutation tried: a keeper that does not stay leaves the directory until the next command.
#[test]
fn a_box_is_removed_when_its_time_has_passed() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--rm", "--ttl", "1m", &image]).refused("--ttl");
    home.run(&["run", "--ttl", "1h", "--name", "kept", &image, "true"]).ok();
    home.run(&["create", "--ttl", "1s", "--name", "new", &image, "true"]).ok();
    home.run(&["run", "--ttl", "2s", "--name", "job", &image, "true"]).ok();
    let ended = Instant::now();
    let boxes = home.path().join("boxes");
    // No command from here on, which would remove it as well: the keeper does it.
    eventually("the box to go", || (std::fs::read_dir(&boxes).unwrap().count() == 2).then_some(()));
    assert!(ended.elapsed() > Duration::from_millis(1500), "it went too early");
    let names = home.run(&["ls", "-a", "--format", "{{.name}}"]).ok();
    assert_eq!(names, "new\nkept\n");
    assert!(home.run(&["system", "df"]).ok().contains("boxes that do not run: 2; they take "));
}

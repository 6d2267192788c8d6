//! What boxes consume, boxes that their user pauses, and all that goes with `prune`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use boxlite_testkit::deadline::{TEST_TIMEOUT, eventually};
use boxlite_testkit::program::Output;

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

/// Returns how often the box's process has written.
fn ticks(home: &Home) -> u64 {
    home.run(&["logs", "web"]).text().lines().count() as u64
}

/// Mutations tried: a stop that leaves the guest paused takes its whole timeout; an exec that is not refused never ends;
/// a pause that only is noted lets the guest write.
#[test]
fn a_box_that_its_user_pauses_stands_still_until_that_is_taken_back() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let script = "trap 'exit 0' TERM; while :; do echo tick; sleep 0.2; done";
    home.run(&["run", "-d", "--name", "web", &image, "sh", "-c", script]).ok();
    eventually("its first words", || (ticks(&home) > 0).then_some(()));
    assert_eq!(home.run(&["pause", "web"]).ok(), "web\n");
    let info = inspect(&home, "web");
    assert_eq!((&info["state"], &info["pause"]["cause"]), (&"paused".into(), &"user".into()));
    assert!(home.run(&["ls"]).ok().contains("Paused (by its user; `boxlite unpause` lets it go on)"));
    home.run(&["pause", "web"]).refused("paused already");
    // Before: it waited for the unpause.
    home.run(&["start", "web"]).refused("boxlite unpause");
    for line in [&["exec", "web", "true"][..], &["attach", "web"], &["cp", "web:/etc/passwd", "-"]] {
        let refused =
            home.run(line).refused("box web is paused by its user; `boxlite unpause web` lets it go on");
        // Before: "`boxlite start` starts it".
        assert!(!refused.contains("hint"), "{refused}");
    }
    let stats = home.run(&["stats", "--no-stream", "--format", "json"]).json();
    assert_eq!((&stats[0]["state"], &stats[0]["cpu_percent"]), (&"paused".into(), &serde_json::Value::Null));
    let before = ticks(&home);
    // A bounded watch: that nothing is written has no event to wait for. A guest that ran would write ten times meanwhile.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(2) {
        assert_eq!(ticks(&home), before, "a paused guest runs");
    }

    assert_eq!(home.run(&["unpause", "web"]).ok(), "web\n");
    eventually("it to go on", || (ticks(&home) > before).then_some(()));
    assert_eq!(home.run(&["exec", "web", "echo", "served"]).ok(), "served\n");
    home.run(&["unpause", "web"]).refused("not paused");
    home.run(&["pause", "web"]).ok();
    home.run(&["stop", "-t", "60", "web"]).ok();
    assert_eq!(
        (&inspect(&home, "web")["state"], &inspect(&home, "web")["exit_code"]),
        (&"stopped".into(), &0.into())
    );
    home.run(&["pause", "web"]).refused("not running");
    home.run(&["unpause", "nobody"]).refused("nobody");
}

#[test]
fn figures_of_boxes_are_shown_as_they_change() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "-d", "--name", "busy", "-m", "200m", &image, "sh", "-c", "while :; do :; done"]).ok();
    home.run(&["create", "--name", "new", &image]).ok();
    let figures = eventually("work to be seen", || {
        let figures = home.run(&["stats", "--no-stream", "--format", "json"]).json();
        (figures[0]["cpu_percent"].as_f64() > Some(20.0)).then_some(figures)
    });
    assert_eq!((figures.as_array().unwrap().len(), &figures[0]["name"]), (1, &"busy".into()));
    assert_eq!(figures[0]["memory_limit"], 200 << 20);
    for figure in ["memory_used", "disk_allocated", "processes"] {
        assert!(figures[0][figure].as_u64() > Some(0), "{figure}: {figures}");
    }
    assert!(figures[0]["network_sent"].is_u64(), "{figures}");
    let table = home.run(&["stats", "-a", "--no-stream"]).ok();
    assert!(table.starts_with("BOX ID") && table.contains("new ") && table.contains("/ 200 MiB"), "{table}");
    assert_eq!(home.run(&["stats", "--no-stream", "--format", "{{.name}}", "new"]).ok(), "new\n");
    home.run(&["stats", "--no-stream", "nobody"]).refused("nobody");
    let mut stream = home.command(["stats", "--format", "{{.name}}"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap().unwrap(), "busy");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&stream), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(Output::of(stream).code(), Some(0));
}

/// Mutation tried: without the question, the box is gone after the first line.
#[test]
fn prune_asks_and_then_removes_what_does_not_run() {
    let Some(home) = Home::able() else { return };
    home.run(&["run", "--name", "old", &home.image("mini"), "true"]).ok();
    home.sleeper("runs");
    let asked = home.run(&["prune"]);
    assert!(asked.err.contains("the boxes that do not run, with their files: old"), "{asked:?}");
    assert!(asked.code() == Some(125) && asked.err.contains("boxlite: nothing was removed"), "{asked:?}");
    let declined = home.run_with(&["system", "prune"], b"n\n".to_vec());
    assert_eq!(declined.code(), Some(125), "{declined:?}");
    assert_eq!(inspect(&home, "old")["state"], "stopped");
    let pruned = home.run_with(&["prune"], b"y\n".to_vec()).ok();
    assert!(pruned.starts_with("removed box old\n") && pruned.ends_with(" freed\n"), "{pruned}");
    home.run(&["inspect", "old"]).refused("old");
    assert_eq!(home.run(&["prune", "-f"]).ok().lines().count(), 1);
    home.run(&["exec", "runs", "true"]).ok();
}

/// Mutation tried: a steward that notes nothing leaves out the end and the pause.
#[test]
fn events_tell_the_life_of_a_box() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "-d", "--name", "web", &image, "sleep", "infinity"]).ok();
    home.run(&["pause", "web"]).ok();
    home.run(&["unpause", "web"]).ok();
    home.run(&["rename", "web", "site"]).ok();
    home.run(&["stop", "-t", "0", "site"]).ok();
    home.run(&["rm", "site"]).ok();
    let events = ["events", "--since", "10m", "--until", "0s"];
    let actions =
        home.run(&[&events[..], &["--filter", "type=box", "--format", "{{.action}}"]].concat()).ok();
    let actions: Vec<&str> = actions.lines().collect();
    assert_eq!(actions, ["create", "start", "pause", "unpause", "rename", "die", "stop", "remove"]);
    let died = home.run(&[&events[..], &["--filter", "event=die"]].concat()).ok();
    let died: serde_json::Value = serde_json::from_str(&died).unwrap();
    let code = died["details"]["exit_code"].as_str();
    assert!(died["subject"] == "box" && matches!(code, Some("137" | "143")), "{died}");
    // The box has gone, and with it the record that has its name.
    assert_eq!(died["name"], "site", "{died}");
    assert!(home.run(&[&events[..], &["--filter", "type=image"]].concat()).ok().contains("\"pull\""));
    assert_eq!(home.run(&["events", "--since", "0s", "--until", "0s"]).ok(), "");
    home.run(&["events", "--filter", "colour=red"]).refused("there are box, event and type");

    home.run(&["create", "--name", "next", &image, "sleep", "infinity"]).ok();
    let mut follower =
        home.start(&["events", "--since", "10m", "--filter", "box=next", "--format", "{{.action}}"]);
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let (told, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
    let next = || seen.recv_timeout(TEST_TIMEOUT).expect("another event");
    assert_eq!(next(), "create");
    // It follows by now.
    home.run(&["start", "next"]).ok();
    assert_eq!(next(), "start");
    home.run(&["stop", "-t", "0", "next"]).ok();
    assert_eq!((next(), next()), ("die".into(), "stop".into()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&follower), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(Output::of(follower).code(), Some(0));
    assert_eq!(seen.iter().collect::<Vec<_>>(), [""; 0], "each event once");
}

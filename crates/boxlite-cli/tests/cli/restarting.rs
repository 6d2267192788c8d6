//! Boxes that are started again by their restart policy, without a daemon.

use boxlite_home::durable::Lock;
use boxlite_testkit::deadline::eventually;
use rustix::process::{Signal, kill_process};

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

fn until(home: &Home, name: &str, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
    eventually(what, || holds(&inspect(home, name)).then_some(()));
}

/// Mutation tried: a keeper that is not told of the run's end (no fork) leaves the first run the only one.
#[test]
fn a_box_that_fails_is_started_again_as_often_as_its_policy_allows() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let script = "echo run; exit 3";
    home.run(&["run", "-d", "--restart", "on-failure:2", "--name", "job", &image, "sh", "-c", script]).ok();
    until(&home, "job", "all restarts", |info| info["state"] == "stopped" && info["restart_count"] == 2);
    assert_eq!(home.run(&["logs", "job"]).text(), "run\nrun\nrun\n");
    let info = inspect(&home, "job");
    assert_eq!((&info["exit_code"], &info["last_exit"]["exit_code"]), (&3.into(), &3.into()), "{info}");
    assert_eq!(info["options"]["restart"], "on-failure:2");

    // Success ends the series, and a start by the user begins another.
    home.run(&["run", "-d", "--restart", "on-failure", "--name", "fine", &image, "true"]).ok();
    home.run(&["wait", "fine"]).ok();
    home.run(&["start", "job"]).ok();
    until(&home, "job", "two more", |info| info["state"] == "stopped" && info["restart_count"] == 2);
    assert_eq!(home.run(&["logs", "job"]).text(), "run\n".repeat(6));
    assert_eq!(inspect(&home, "fine")["restart_count"], 0);
}

/// Mutations tried: a stop that records nothing leaves the box about to be restarted; a waiter that does not look whether the
/// box was stopped starts it.
#[test]
fn a_stop_by_the_user_ends_the_restarts_and_a_kill_of_the_shim_does_not() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "-d", "--restart", "always", "--name", "web", &image, "sleep", "infinity"]).ok();
    let id = inspect(&home, "web")["id"].as_str().unwrap().to_owned();
    let (_, shim) = Home::processes(&id).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    until(&home, "web", "a restart", |info| info["state"] == "running" && info["restart_count"] == 1);
    eventually("its guest", || (home.run(&["exec", "web", "true"]).code() == Some(0)).then_some(()));
    home.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(inspect(&home, "web")["state"], "stopped");

    // While it waits for its restart.
    home.run(&["run", "-d", "--restart", "always", "--name", "loop", &image, "false"]).ok();
    until(&home, "loop", "some restarts", |info| {
        info["state"] == "restarting" && info["restart_count"].as_u64() > Some(2)
    });
    eventually("its wait in the table", || home.run(&["ls"]).ok().contains("Restarting (1)").then_some(()));
    let count = inspect(&home, "loop")["restart_count"].clone();
    home.run(&["stop", "loop"]).ok();
    assert_eq!(inspect(&home, "loop")["state"], "stopped");
    let id = inspect(&home, "loop")["id"].as_str().unwrap().to_owned();
    let lock = home.path().join("boxes").join(id).join("restart.lock");
    eventually("its waiter to go", || {
        Lock::try_shared_on(std::fs::File::open(&lock).unwrap(), &lock).unwrap().map(drop)
    });
    assert_eq!(inspect(&home, "loop")["state"], "stopped", "its waiter has started it");
    assert_eq!(home.run(&["ls", "-q"]).ok(), "", "neither runs, nor is about to");
    home.run(&["start", "loop"]).ok();
    until(&home, "loop", "a new series", |info| info["restart_count"].as_u64() < count.as_u64());
    // It runs at times, and cannot be removed then.
    eventually("its removal as it waits", || (home.run(&["rm", "loop"]).code() == Some(0)).then_some(()));
    assert_eq!(inspect(&home, "web")["state"], "stopped", "stopped long ago");
}

/// Mutation tried: a refusal that is not recorded is not said.
#[test]
fn a_restart_asks_the_admission_guard_and_says_why_it_is_refused() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "-d", "--restart", "always", "--name", "web", &image, "sleep", "infinity"]).ok();
    let config = home.path().join("config.toml");
    std::fs::write(&config, "hard_floor = \"900T\"\nsoft_floor = \"900T\"\n").unwrap();
    let id = inspect(&home, "web")["id"].as_str().unwrap().to_owned();
    let (_, shim) = Home::processes(&id).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    until(&home, "web", "a refusal", |info| {
        info["state"] == "restarting"
            && info["reason"].as_str().is_some_and(|reason| reason.contains("not enough disk space"))
    });
    std::fs::remove_file(config).unwrap();
    until(&home, "web", "room", |info| info["state"] == "running");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--restart", "sometimes", &image]).refused("there are no, on-failure[:N], always");
    home.run(&["create", "--restart", "on-failure:x", &image]).refused("N is a number");
    home.run(&["create", "--rm", "--restart", "always", &image]).refused("--restart always");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

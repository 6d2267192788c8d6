//! The instants between states: a box that ends, that is stuck, or that somebody removes meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;
use rustix::process::{Pid, Signal, kill_process};

use crate::home::Home;

/// Waits until the box has run and ended, whoever starts it.
fn until_ended(home: &Home, name: &str) {
    while home.run(&["wait", name]).code() != Some(0) {}
}

/// More than the windows between guest and reader hold is left over when the box is gone; it comes from the log.
/// Mutation tried: without the log's rest the reader gets 352 256 bytes and a status of 0.
#[test]
fn a_slow_reader_gets_all_output_of_a_box_that_is_gone() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "big", &home.image("mini"), "head", "-c", "900000", "/dev/zero"]).ok();
    let reader = home.start(&["start", "-a", "big"]);
    until_ended(&home, "big");
    assert_eq!(Output::of(reader).ok().len(), 900_000);
}

/// Mutation tried: without the forced end `rm -f` waits for the stopped shim for ever.
#[test]
fn a_box_whose_shim_is_stuck_is_removed_by_force() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["run", "-d", "--name", "stuck", &home.image("mini"), "sleep", "infinity"]).ok();
    let (_, shim) = Home::processes(id.trim()).expect("a virtual machine and its shim");
    kill_process(shim, Signal::STOP).unwrap();
    home.run(&["rm", "-f", "stuck"]).ok();
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    assert!(Home::processes(id.trim()).is_none(), "QEMU outlived its shim");
}

/// Stops the process `victim` of a new box and then the box with a timeout of 1 s; checks what is told and recorded.
fn stop_of_a_hung_box(name: &str, victim: impl FnOnce(Pid, Pid) -> Pid) {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["run", "-d", "--name", name, &home.image("mini"), "sleep", "infinity"]).ok();
    let (qemu, shim) = Home::processes(id.trim()).expect("a virtual machine and its shim");
    kill_process(victim(qemu, shim), Signal::STOP).unwrap();
    let began = Instant::now();
    let stopped = home.run(&["stop", "-t", "1", name]);
    let took = began.elapsed();
    // 1 s, the documented grace of 10 s, and what a busy machine needs to start the client.
    assert!(took < Duration::from_secs(14), "the stop took {took:?}");
    stopped.refused("unflushed writes were lost");
    assert!(Home::processes(id.trim()).is_none(), "QEMU outlived the stop");
    let info = home.run(&["inspect", name]).json()[0].clone();
    assert_eq!(info["exit_code"], 137, "{info}");
    assert!(info["reason"].as_str().unwrap_or_default().contains("unflushed writes were lost"), "{info}");
    // It is a box like any other again.
    home.run(&["start", name]).ok();
    home.run(&["stop", "-t", "0", name]).ok();
}

/// Before: 66 s, an exit status of 0 and no reason. Mutation tried: where an end without a flush keeps its cause, the
/// stop ends with 0 again.
#[test]
fn a_stop_ends_in_time_and_says_what_was_lost_when_qemu_hangs() {
    stop_of_a_hung_box("hungvm", |qemu, _| qemu);
}

/// Mutation tried: without the completed record the reason says nothing of the loss.
#[test]
fn a_stop_ends_in_time_and_says_what_was_lost_when_the_shim_hangs() {
    stop_of_a_hung_box("hungshim", |_, shim| shim);
}

/// Mutation tried: with 10 s for the shim to answer this takes 8 s.
#[test]
fn a_box_whose_qemu_hangs_is_removed_by_force_at_once() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["run", "-d", "--name", "hung", &home.image("mini"), "sleep", "infinity"]).ok();
    let (qemu, _) = Home::processes(id.trim()).expect("a virtual machine and its shim");
    kill_process(qemu, Signal::STOP).unwrap();
    let began = Instant::now();
    home.run(&["rm", "-f", "hung"]).ok();
    assert!(began.elapsed() < Duration::from_secs(7), "the removal took {:?}", began.elapsed());
    assert!(Home::processes(id.trim()).is_none(), "QEMU outlived its box");
}

/// How many sockets a process has open; each who asks a shim for something has one to it.
fn sockets(process: Pid) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).expect("its descriptors");
    let of = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    of.filter(|leads| leads.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn whoever_waits_for_a_box_that_is_removed_learns_how_it_ended() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["run", "-d", "--name", "doomed", &home.image("mini"), "sleep", "infinity"]).ok();
    let (_, shim) = Home::processes(id.trim()).expect("a virtual machine and its shim");
    let (before, began) = (sockets(shim), Instant::now());
    let waiting = home.start(&["wait", "doomed"]);
    // Somebody who asked before may only now have gone, and then there is nothing to see.
    let long = Duration::from_secs(10);
    eventually("it to wait", || (sockets(shim) > before || began.elapsed() > long).then_some(()));
    home.run(&["rm", "-f", "doomed"]).ok();
    assert_eq!(Output::of(waiting).ok().trim(), "137");
}

/// Before: a TERM counted as delivered once it was queued, and the client waited for ever.
/// Mutation tried: the program before the change, whose client is killed after 60 s.
#[test]
fn a_client_of_a_box_that_does_not_answer_goes_on_the_first_signal() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["run", "-d", "--name", "wedged", &home.image("mini"), "sleep", "infinity"]).ok();
    let (qemu, shim) = Home::processes(id.trim()).expect("a virtual machine and its shim");
    kill_process(qemu, Signal::STOP).unwrap();
    let before = sockets(shim);
    let client = home.start(&["exec", "wedged", "true"]);
    eventually("the client to ask", || (sockets(shim) > before).then_some(()));
    kill_process(Pid::from_child(&client), Signal::TERM).unwrap();
    let output = Output::within(client, Duration::from_secs(60));
    assert_eq!(output.code(), Some(143), "{output:?}");
    let limited = home.start(&["exec", "--timeout", "1", "wedged", "true"]);
    let output = Output::within(limited, Duration::from_secs(60));
    assert_eq!(output.code(), Some(124), "{output:?}");
    assert!(output.err.contains("may run on"), "{output:?}");
    home.run(&["rm", "-f", "wedged"]).ok();
}

/// Mutation tried: the program before the change, which tells no reason.
#[test]
fn want_of_memory_in_the_guest_is_a_recorded_reason() {
    let Some(home) = Home::able() else { return };
    let eats = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done";
    let output = home.run(&["run", "--name", "eater", "-m", "128m", &home.image("mini"), "bash", "-c", eats]);
    assert_eq!(output.code(), Some(137), "{output:?}");
    assert!(output.err.contains("out of memory"), "{output:?}");
    let info = home.run(&["inspect", "eater"]).json()[0].clone();
    assert_eq!((&info["state"], &info["exit_code"]), (&"stopped".into(), &137.into()), "{info}");
    assert!(info["reason"].as_str().unwrap_or_default().starts_with("out of memory: "), "{info}");
    let listed = home.run(&["ls", "-a"]).ok();
    assert!(listed.contains("Stopped (137, out of memory)"), "{listed}");
    // The next run has its own memory.
    home.run(&["rm", "eater"]).ok();
}

/// Before: 37 s and no reason.
#[test]
fn a_stop_of_a_fork_bomb_ends_in_time_and_says_why() {
    let Some(home) = Home::able() else { return };
    let bomb = "trap '' TERM; bomb() { bomb | bomb & }; echo ready; bomb; while :; do sleep 1; done";
    home.run(&["run", "-d", "--name", "bomb", &home.image("mini"), "bash", "-c", bomb]).ok();
    eventually("the bomb to go off", || home.run(&["logs", "bomb"]).text().contains("ready").then_some(()));
    let began = Instant::now();
    home.run(&["stop", "-t", "2", "bomb"]);
    let took = began.elapsed();
    // 2 s, the documented grace of 10 s, and what a busy machine needs to start the client.
    assert!(took < Duration::from_secs(16), "the stop took {took:?}");
    let info = home.run(&["inspect", "bomb"]).json()[0].clone();
    assert_eq!(info["exit_code"], 137, "{info}");
    assert!(!info["reason"].as_str().unwrap_or_default().is_empty(), "{info}");
    home.run(&["rm", "-f", "bomb"]).ok();
}

/// Whether somebody has a `flock` on the file.
fn is_locked(path: &Path) -> bool {
    let Ok(found) = std::fs::metadata(path) else { return false };
    let inode = format!(":{}", found.ino());
    let locks = std::fs::read_to_string("/proc/locks").expect("the locks of this host");
    locks.lines().any(|line| line.split_whitespace().nth(5).is_some_and(|file| file.ends_with(&inode)))
}

/// Only the directory is looked at: a command might remove the box as well.
/// Mutation tried: the program before the change, with which the box stays.
#[test]
fn an_auto_remove_box_goes_when_it_ends_without_any_command() {
    let Some(home) = Home::able() else { return };
    let boxes = || std::fs::read_dir(home.path().join("boxes")).expect("boxes").count();
    home.run(&["run", "-d", "--rm", &home.image("mini"), "sh", "-c", "sleep 0.1; exit 3"]).ok();
    eventually("the box to go", || (boxes() == 0).then_some(()));
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    // A client that waits learns how the box ended all the same.
    let waiting = "until test -e /go; do sleep 0.1; done; exit 4";
    let id =
        home.run(&["run", "-d", "--rm", "--name", "brief", &home.image("mini"), "sh", "-c", waiting]).ok();
    let attendance = home.path().join("boxes").join(id.trim()).join("attendance.lock");
    eventually("the starter to go", || (!is_locked(&attendance)).then_some(()));
    let waiting = home.start(&["wait", "brief"]);
    eventually("it to wait", || is_locked(&attendance).then_some(()));
    // The box may end before the command can say how it ended.
    home.run(&["exec", "brief", "touch", "/go"]);
    assert_eq!(Output::of(waiting).ok().trim(), "4");
    eventually("the box to go", || (boxes() == 0).then_some(()));
    // Removal by others first, and a restart, are no trouble.
    home.run(&["run", "-d", "--rm", "--name", "again", &home.image("mini"), "sleep", "infinity"]).ok();
    home.run(&["restart", "-t", "0", "again"]).ok();
    assert!(home.run(&["ls"]).ok().contains("again"));
    home.run(&["rm", "-f", "again"]).ok();
    eventually("the box to go", || (boxes() == 0).then_some(()));
}

/// Mutation tried: the program before the change, which has the last run alone.
#[test]
fn logs_outlive_runs_and_tell_them_apart() {
    let Some(home) = Home::able() else { return };
    home.run(&[
        "run",
        "--name",
        "told",
        &home.image("mini"),
        "sh",
        "-c",
        "echo first >&2; echo a >>/n; wc -l </n",
    ])
    .ok();
    home.run(&["start", "-a", "told"]).ok();
    let all = home.run(&["logs", "told"]);
    assert_eq!((all.text().as_str(), all.err.as_str()), ("1\n2\n", "first\nfirst\n"));
    for (run, said) in [("1", "1\n"), ("2", "2\n"), ("-1", "2\n"), ("-2", "1\n")] {
        assert_eq!(home.run(&["logs", "--run", run, "told"]).ok(), said, "run {run}");
    }
    home.run(&["logs", "--run", "3", "told"]).refused("runs 1 to 2");
    let attached = home.run(&["attach", "told"]);
    assert_eq!((attached.text().as_str(), attached.code()), ("2\n", Some(0)));
    assert!(attached.err.contains("box told does not run; this is what its last run wrote"), "{attached:?}");
    home.run(&["logs", "--run", "0", "told"]).refused("-1 for the last");
    let stamped = home.run(&["logs", "-t", "told"]).ok();
    let second = stamped.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a time");
    assert_eq!(home.run(&["logs", "--until", second, "told"]).ok(), "1\n");
    assert_eq!(home.run(&["logs", "--since", second, "told"]).ok(), "2\n");
    assert_eq!(home.run(&["logs", "--until", "1h", "told"]).ok(), "");
}

/// As a cron job does it: the same name, every time.
#[test]
fn an_ended_auto_remove_box_gives_up_its_name_at_once() {
    let Some(home) = Home::able() else { return };
    for _ in 0..2 {
        home.run(&["run", "-d", "--rm", "--name", "job", &home.image("mini"), "true"]).ok();
        let _ = home.run(&["wait", "job"]);
    }
}

#[test]
fn the_consoles_log_is_not_the_commands() {
    let Some(home) = Home::able() else { return };
    home.run(&["run", "--name", "said", &home.image("mini"), "echo", "from the command"]).ok();
    assert!(home.run(&["logs", "said"]).ok().contains("from the command"));
    assert!(!home.run(&["logs", "--console", "said"]).ok().contains("from the command"));
}

//! Boxes from creation to removal.

use std::thread;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::Output;

use crate::home::Home;

#[test]
fn files_outlive_the_run_and_logs_its_end() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let script =
        "echo start $(cat /root/count 2>/dev/null); echo x >>/root/count; echo oops >&2; exec sleep infinity";
    let id = home.run(&["create", "--name", "web", &image, "sh", "-c", script]).ok();
    let id = id.trim();
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(home.run(&["start", &id[..8]]).ok().trim(), &id[..8], "a unique prefix is an id");
    home.run(&["start", "web"]).ok();

    eventually("the command to have written", || {
        home.run(&["logs", "web"]).err.contains("oops").then_some(())
    });
    let follower = home.start(&["logs", "-f", "web"]);
    home.run(&["stop", "-t", "1", "web"]).ok();
    let followed = Output::of(follower);
    assert_eq!((followed.text().as_str(), followed.err.as_str()), ("start\n", "oops\n"), "{followed:?}");
    home.run(&["stop", "web"]).ok();
    let code = home.run(&["wait", "web"]).ok();
    assert!(code == "143\n" || code == "137\n", "{code}");

    home.run(&["restart", "-t", "1", "web"]).ok();
    eventually("it to have written again", || {
        home.run(&["logs", "--run=-1", "web"]).err.contains("oops").then_some(())
    });
    let kept = home.run(&["exec", "web", "cat", "/root/count"]).ok();
    assert_eq!(kept, "x\nx\n");
    assert_eq!(home.run(&["logs", "--run=-1", "web"]).text(), "start x\n");
    assert_eq!(home.run(&["logs", "web"]).text(), "start\nstart x\n");
    let stamped = home.run(&["logs", "-t", "-n", "1", "web"]);
    assert!(stamped.text().starts_with("20") || stamped.err.starts_with("20"), "{stamped:?}");
    // A quiet boot says nothing there.
    home.run(&["logs", "--console", "web"]).ok();

    home.run(&["rm", "web"]).refused("running");
    home.run(&["rm", "-f", "web"]).ok();
    home.run(&["start", "web"]).refused("web");
    home.run(&["inspect", id]).refused(id);
}

#[test]
fn two_processes_may_start_one_box() {
    let Some(home) = Home::able() else { return };
    let id = home.run(&["create", "--name", "both", &home.image("mini"), "sleep", "infinity"]).ok();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..2).map(|_| scope.spawn(|| home.run(&["start", "both"]))).collect();
        for start in starts {
            start.join().unwrap().ok();
        }
    });
    let machines = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("qemu-system") && line.contains(id.trim())
        })
        .count();
    assert_eq!(machines, 1, "one box, one virtual machine");
    home.run(&["exec", "both", "true"]).ok();
}

//! Guests that wait in a server for the next boxes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use boxlite_testkit::deadline::eventually;
use rustix::process::Signal;

use crate::home::Home;
use crate::serving::Server;

/// Bytes promised to each guest that waits in the home.
fn waiting(home: &Home) -> Vec<u64> {
    let info = home.run(&["info", "--format", "json"]).json();
    serde_json::from_value(info["memory"]["waiting"].clone()).unwrap()
}

fn until_one_waits(home: &Home) {
    eventually("a guest to wait", || (waiting(home).len() == 1).then_some(()));
}

/// What the shim of the box `id` has logged.
fn has_waited(home: &Home, id: &str) -> bool {
    let log = fs::read_to_string(home.path().join("boxes").join(id).join("shim.log")).unwrap();
    log.contains("the guest has waited for this box")
}

/// The process id of the QEMU that has the disk of the box `id` open.
fn qemu_of(id: &str) -> u32 {
    let has_disk = |process: &u32| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| fs::read_link(file.path()).ok());
        let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        program.to_string_lossy().contains("qemu-system")
            && names.into_iter().any(|name| name.to_string_lossy().contains(id))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(has_disk).expect("a QEMU")
}

/// Mutations tried: the disk's placeholder kept (the guest finds no root filesystem); a control group looked for by the box's id
/// alone.
#[tokio::test]
async fn a_waiting_guest_becomes_one_box_with_all_that_a_box_has() {
    let Some(home) = Home::able() else { return };
    let layout = home.layout().to_str().unwrap().to_owned();
    let mut server = Server::start(&home, &["--pool", "1", "--allow-path", &layout]);
    let (url, image) = (server.url.clone(), home.image("mini"));
    let run = |words: &[&str]| {
        let begin = ["--url", &url, "run", "-m", "128m"];
        home.run(&[&begin[..], words].concat()).ok().trim().to_owned()
    };
    // The first start of some hardware leaves a mark, the second a template; the third says what a guest waits with.
    for _ in 0..3 {
        run(&["--rm", &image, "true"]);
    }
    until_one_waits(&home);
    assert!(home.run(&["info"]).ok().contains("1 guest that waits for a box"));

    let mut drawn = BTreeSet::new();
    let mut users = BTreeSet::new();
    for name in ["one", "two"] {
        until_one_waits(&home);
        let id = run(&["-d", "--name", name, &image, "sleep", "infinity"]);
        assert!(has_waited(&home, &id), "{name}");
        let sh = |script: &str| home.run(&["exec", name, "sh", "-c", script]).ok();
        let random = "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; \
                      cat /sys/class/net/eth0/address";
        drawn.extend(sh(random).lines().map(str::to_owned));
        assert_eq!(sh("hostname").trim(), &id[..12]);
        let clock: u64 = sh("date +%s").trim().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(clock) < 5, "the box's clock says {clock} at {now}");
        assert_eq!(sh("cat /sys/class/block/vda/size").trim().parse::<u64>().unwrap() * 512, 10 << 30);
        sh(&format!("echo {name} >/note; sync"));
        home.run(&["exec", name, "ping", "-c", "1", "-W", "30", "10.0.2.2"]).ok();
        let process = qemu_of(&id);
        users.insert(fs::metadata(format!("/proc/{process}")).unwrap().uid());
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(groups.contains("/boxlite/"), "{groups}");
        }
        let info = home.run(&["info", "--format", "json"]).json();
        assert_eq!(info["memory"]["unmeasured"], 0, "the control group of {name} is not found");
    }
    assert_eq!(drawn.len(), 6, "{drawn:?}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(users.len(), 2, "{users:?}");
    }

    // What no guest waits for, and what it is not told of, comes up all the same.
    let other = run(&["-d", "--name", "other", "-p", "0:80", &image, "sleep", "infinity"]);
    assert!(!has_waited(&home, &other));
    assert_eq!(run(&["--rm", "-e", "WORD=heard", &image, "sh", "-c", "echo $WORD"]), "heard");

    // Its run ends as any other, and so does its box.
    home.run(&["stop", "-t", "0", "one"]).ok();
    home.run(&["start", "one"]).ok();
    assert_eq!(home.run(&["exec", "one", "cat", "/note"]).ok().trim(), "one");

    // The guests end with the server, and the boxes do not.
    until_one_waits(&home);
    server.signal(Signal::KILL);
    server.wait();
    eventually("the waiting guest to end", || waiting(&home).is_empty().then_some(()));
    assert_eq!(home.run(&["exec", "two", "cat", "/note"]).ok().trim(), "two");
    assert_eq!(home.run(&["gc", "--format", "json"]).json()["failures"], serde_json::json!([]));
}

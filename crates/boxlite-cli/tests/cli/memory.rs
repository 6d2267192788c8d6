//! Admission by memory: boxes are promised what the host has, and no promise outlives its box.

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::{Output, hinted};
use rustix::process::{Signal, kill_process};

use crate::home::Home;

const MIB: u64 = 1 << 20;

/// What a box is promised besides its guest's memory, beside a 32nd of that.
const OVERHEAD: u64 = 256 * MIB;

/// A home whose boxes may have so little of the host that one box of [`Budget::guest`] fits, and two do not.
struct Budget {
    home: Home,
    /// Bytes that boxes may have.
    limit: u64,
    /// Memory of a guest, as `-m` takes it.
    guest: String,
}

impl Budget {
    fn prepare() -> Option<Self> {
        let bytes =
            Home::able()?.run(&["info", "--format", "json"]).json()["memory"]["host"]["bytes"].as_u64()?;
        let (share, limit) =
            (1..=100).map(|share| (share, bytes / 100 * share)).find(|(_, limit)| *limit >= 800 * MIB)?;
        let home = Home::able()?;
        std::fs::write(home.path().join("config.toml"), format!("memory_share = {share}\n")).unwrap();
        let guest = (limit / 4 * 3 - OVERHEAD) / 33 * 32 / MIB;
        Some(Self { home, limit, guest: format!("{guest}m") })
    }

    fn create(&self, name: &str) {
        let image = self.home.image("mini");
        self.home.run(&["create", "--name", name, "-m", &self.guest, &image, "sleep", "infinity"]).ok();
    }

    fn promises(&self) -> Vec<u64> {
        let info = self.home.run(&["info", "--format", "json"]).json();
        info["memory"]["promises"].as_array().unwrap().iter().map(|bytes| bytes.as_u64().unwrap()).collect()
    }
}

/// Mutation tried: without the promise among what the shim inherits, the second box starts.
#[test]
fn a_start_is_refused_what_was_promised_to_others_until_they_have_gone() {
    let Some(budget) = Budget::prepare() else { return };
    let home = &budget.home;
    budget.create("one");
    budget.create("two");
    assert_eq!(budget.promises(), [0; 0]);
    home.run(&["start", "one"]).ok();
    let [promise] = budget.promises()[..] else { panic!("{:?}", budget.promises()) };
    assert!(promise <= budget.limit && promise > budget.limit / 2);
    let info = home.run(&["info", "--format", "json"]).json();
    assert!(info["memory"]["used"].as_u64() > Some(16 * MIB), "{info}");
    assert_eq!((&info["memory"]["full"], &info["memory"]["unmeasured"]), (&true.into(), &0.into()));

    let refused = home.run(&["start", "two"]).lacks_room("box two is not started: not enough memory");
    for part in [
        &format!("{} for its guest", shown(&budget.guest)),
        "memory_share",
        "is promised to one (",
        "stop a box",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    hinted(&refused);
    assert_eq!(home.run(&["inspect", "two"]).json()[0]["state"], "created");
    let overlay = home.run(&["inspect", "two"]).json()[0]["disk_allocated"].clone();
    assert_eq!(overlay, 0, "nothing was written for it");
    // Files of a resting box take a guest too.
    home.run(&["cp", "two:/etc/passwd", "-"]).lacks_room("not enough memory");

    let id = home.run(&["inspect", "one"]).json()[0]["id"].as_str().unwrap().to_owned();
    let (_, shim) = Home::processes(&id).expect("a virtual machine and its shim");
    kill_process(shim, Signal::KILL).unwrap();
    eventually("the promise to end with its shim", || budget.promises().is_empty().then_some(()));
    home.run(&["start", "two"]).ok();
    // A restart gives the promise back first.
    home.run(&["restart", "-t", "0", "two"]).ok();
    home.run(&["start", "one"]).lacks_room("is promised to two (");
    home.run(&["stop", "-t", "0", "two"]).ok();
    home.run(&["start", "one"]).ok();
}

fn shown(guest: &str) -> String {
    guest.replace('m', " MiB")
}

#[test]
fn of_starts_at_the_same_time_one_gets_the_last_memory() {
    let Some(budget) = Budget::prepare() else { return };
    let names = ["a", "b", "c", "d"];
    for name in names {
        budget.create(name);
    }
    let started: Vec<_> = names.iter().map(|name| budget.home.start(&["start", name])).collect();
    let ended: Vec<Output> = started.into_iter().map(Output::of).collect();
    let mut codes: Vec<_> = ended.iter().map(Output::code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(75), Some(75), Some(75)], "{ended:?}");
    assert_eq!(budget.promises().len(), 1);
}

/// Mutation tried: without the check before it, `run` asks the registry, which does not exist.
#[test]
fn what_could_never_start_is_refused_before_anything_is_pulled_or_written() {
    let Some(home) = Home::able() else { return };
    home.run(&["ls"]).ok();
    for (command, size) in
        [("create", "500t"), ("run", "500t"), ("run", "16000p"), ("run", "18446744073709551615")]
    {
        let refused = home
            .run(&[command, "-m", size, "127.0.0.1:1/nobody/nothing:1"])
            .lacks_room("not enough memory: the box needs ");
        assert!(refused.contains("of this host's ") || refused.contains("control group"), "{refused}");
        assert!(!refused.contains("is promised"), "{refused}");
    }
    for (size, part) in [("0", "at least 96 MiB"), ("1", "at least 96 MiB"), ("95m", "at least 96 MiB")] {
        home.run(&["create", "-m", size, &home.image("mini"), "true"]).refused(part);
    }
    for size in ["-1", "1e9", "20000p", "x"] {
        assert_ne!(home.run(&["create", &format!("-m={size}"), &home.image("mini"), "true"]).code(), Some(0));
    }
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

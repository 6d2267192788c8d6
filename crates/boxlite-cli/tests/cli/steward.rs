//! The shim and its steward: whichever process of a box is killed, the box is found dead, with what it wrote, and nothing of it
//! is left, as root and as an ordinary user.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use boxlite_testkit::{deadline, oracle};
use rustix::process::{Pid, Signal, kill_process};

use crate::escape::also_as_nobody;
use crate::home::Home;

/// Which of a box's processes are killed.
type Victims = fn(&Watched) -> Vec<Pid>;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running box and its processes.
struct Watched {
    id: String,
    shim: Pid,
    steward: Pid,
    qemu: Pid,
    all: Vec<Pid>,
}

impl Watched {
    /// A box that is up, started with `options`.
    fn start(home: &Home, options: &[&str]) -> Self {
        let image = home.image("mini");
        let words = [&["run", "-d", "-m", "128m"], options, &[&image, "sleep", "infinity"]].concat();
        let id = home.run(&words).ok().trim().to_owned();
        home.run(&["exec", &id, "true"]).ok();
        let (qemu, shim) = Home::processes(&id).unwrap();
        let steward = steward_of(shim).unwrap();
        let mut all = vec![shim];
        let mut next = 0;
        while let Some(&parent) = all.get(next) {
            all.extend(children(parent));
            next += 1;
        }
        assert!(all.contains(&steward) && all.contains(&qemu), "{all:?}");
        Self { id, shim, steward, qemu, all }
    }

    /// Waits until every process of it has gone.
    fn until_dead(&self) {
        for &process in &self.all {
            deadline::until(TIMEOUT, "a process of the box to be gone", || !is_alive(process));
        }
    }

    /// The same, and expects its control group to have gone with them.
    fn until_gone(&self) {
        self.until_dead();
        assert_eq!(self.groups(), Vec::<PathBuf>::new());
    }

    /// The directories of its control group.
    fn groups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let places = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        places.map(|place| place.join("boxlite").join(&self.id)).filter(|group| group.is_dir()).collect()
    }
}

/// The children of a process with one thread.
pub(crate) fn children(process: Pid) -> Vec<Pid> {
    let process = process.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// The steward of a shim.
pub(crate) fn steward_of(shim: Pid) -> Option<Pid> {
    let is_steward = |process: &Pid| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
        name.is_ok_and(|name| name.trim() == "boxlite-steward")
    };
    children(shim).into_iter().find(is_steward)
}

/// Whether a process runs; one that only waits for its parent to look does not.
pub(crate) fn is_alive(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn kill(process: Pid) {
    kill_process(process, Signal::KILL).unwrap();
}

fn state(home: &Home, id: &str) -> (String, String) {
    let text = home.run(&["inspect", id]).ok();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| told[0][name].as_str().unwrap_or_default().to_owned();
    (field("state"), field("reason"))
}

#[test]
fn whichever_process_is_killed_the_box_is_found_dead_and_nothing_is_left() {
    also_as_nobody("steward::whichever_process_is_killed_the_box_is_found_dead_and_nothing_is_left");
    let Some(home) = Home::able() else { return };
    let cases: [(&str, Victims); 6] = [
        ("shim", |of| vec![of.shim]),
        ("QEMU", |of| vec![of.qemu]),
        ("jailer", |of| vec![Home::parent(of.qemu).unwrap()]),
        ("shim and steward", |of| vec![of.shim, of.steward]),
        ("steward and shim", |of| vec![of.steward, of.shim]),
        ("everything", |of| of.all.clone()),
    ];
    for (name, victims) in cases {
        let watched = Watched::start(&home, &[]);
        for victim in victims(&watched) {
            // One may take others along.
            let _ = kill_process(victim, Signal::KILL);
        }
        watched.until_dead();
        let (state, reason) = state(&home, &watched.id);
        assert_eq!(state, "failed", "{name}: {reason}");
        assert!(reason.contains("killed"), "{name}: {reason}");
        // The box starts again, and its lock and its user id are free.
        home.run(&["start", &watched.id]).ok();
        home.run(&["exec", &watched.id, "true"]).ok();
        home.run(&["rm", "-f", &watched.id]).ok();
        deadline::until(TIMEOUT, "the group to be gone", || watched.groups().is_empty());
    }
}

#[test]
fn a_box_whose_steward_is_killed_ends_with_nothing_lost() {
    also_as_nobody("steward::a_box_whose_steward_is_killed_ends_with_nothing_lost");
    let Some(home) = Home::able() else { return };
    let watched = Watched::start(&home, &[]);
    home.run(&["exec", &watched.id, "sh", "-c", "echo precious > /kept"]).ok();
    kill(watched.steward);
    watched.until_dead();
    let (state, reason) = state(&home, &watched.id);
    assert_eq!((state.as_str(), reason.as_str()), ("failed", "the box's steward was killed"));
    home.run(&["start", &watched.id]).ok();
    assert_eq!(home.run(&["exec", &watched.id, "cat", "/kept"]).ok(), "precious\n");
}

/// Mutation tried: a shim that only logs that a volume's daemon has ended; its box is `Up` for good.
#[test]
fn a_box_whose_volume_is_served_no_more_ends_and_says_so() {
    let Some(home) = Home::able() else { return };
    let folder = tempfile::tempdir().unwrap();
    let what = format!("virtiofsd of the volume {} ", folder.path().display());
    let watched = Watched::start(&home, &["-v", &format!("{}:/data", folder.path().display())]);
    let uses = [
        // A process that hangs in the folder for good, and nobody who uses it.
        "echo once >/kept; (while :; do echo x >>/data/file; done) >/dev/null 2>&1 &",
        "echo twice >/kept",
    ];
    for in_box in uses {
        home.run(&["exec", &watched.id, "sh", "-c", in_box]).ok();
        deadline::until(TIMEOUT, "a write to the folder", || folder.path().join("file").exists());
        // Of its two processes, the one in the sandbox serves, and the other waits for that.
        let (_, shim) = Home::processes(&watched.id).unwrap();
        let outer = children(shim).into_iter().find(|&process| is_virtiofsd(process)).unwrap();
        kill(children(outer)[0]);
        let (state, reason) = deadline::within(TIMEOUT, "the end of the box", || {
            Some(state(&home, &watched.id)).filter(|(state, _)| state != "running")
        });
        assert_eq!(state, "failed", "{reason}");
        assert!(reason.starts_with(&what) && reason.ends_with("terminated by signal 9"), "{reason}");
        home.run(&["start", &watched.id]).ok();
        let kept = home.run(&["exec", &watched.id, "sh", "-c", "cat /kept; ls /data"]).ok();
        assert_eq!(kept, format!("{}\nfile\n", in_box.split(' ').nth(1).unwrap()));
    }
    let died = ["events", "--since", "10m", "--until", "0s", "--filter", "event=die"];
    assert_eq!(home.run(&died).ok().matches(&what).count(), 2);
}

fn is_virtiofsd(process: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
    name.is_ok_and(|name| name.starts_with("boxlite-virtio"))
}

#[test]
fn ending_its_control_group_ends_all_of_a_box() {
    if oracle::skip_unless_root("a control group") {
        return;
    }
    let Some(home) = Home::able() else { return };
    let watched = Watched::start(&home, &["--rm"]);
    let groups = watched.groups();
    assert!(!groups.is_empty(), "root has a control group here");
    for group in &groups {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
        let members: Vec<&str> = members.lines().collect();
        let shim = watched.shim.as_raw_nonzero().to_string();
        assert!(members.contains(&shim.as_str()), "{} has {members:?}", group.display());
        let steward = watched.steward.as_raw_nonzero().to_string();
        assert!(!members.contains(&steward.as_str()), "the steward outlives the group");
    }
    match groups.iter().map(|group| group.join("cgroup.kill")).find(|switch| switch.exists()) {
        Some(switch) => fs::write(switch, "1").unwrap(),
        None => {
            for member in fs::read_to_string(groups[0].join("cgroup.procs")).unwrap().lines() {
                let _ = kill_process(Pid::from_raw(member.parse().unwrap()).unwrap(), Signal::KILL);
            }
        }
    }
    watched.until_gone();
    let directory = home.path().join("boxes").join(&watched.id);
    assert!(!directory.exists(), "the steward has removed the box");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

/// Without a command that would look for it. Mutation tried: a steward whose removal fails.
#[test]
fn a_box_that_removes_itself_goes_although_its_shim_was_killed() {
    also_as_nobody("steward::a_box_that_removes_itself_goes_although_its_shim_was_killed");
    let Some(home) = Home::able() else { return };
    let watched = Watched::start(&home, &["--rm"]);
    let directory = home.path().join("boxes").join(&watched.id);
    assert!(directory.exists());
    kill(watched.shim);
    watched.until_gone();
    deadline::until(TIMEOUT, "the box's directory to be gone", || !directory.exists());
}

/// The log of a shim that cannot open files.
#[test]
fn a_log_goes_on_in_a_new_file_and_a_late_client_reads_the_old_one() {
    also_as_nobody("steward::a_log_goes_on_in_a_new_file_and_a_late_client_reads_the_old_one");
    let Some(home) = Home::able() else { return };
    home.run(&["ls"]).ok();
    fs::write(home.path().join("config.toml"), "main_log_max = \"512KiB\"\n").unwrap();
    let image = home.image("mini");
    let script = "i=0; while [ $i -lt 8000 ]; do echo \"$i 0123456789012345678901234567890123456789012345678901234567\"; i=$((i+1)); done; sleep 1000";
    home.run(&["run", "-d", "--name", "loud", "-m", "128m", &image, "sh", "-c", script]).ok();
    let logs = || home.run(&["logs", "loud"]).ok();
    deadline::until(TIMEOUT, "all of the output", || {
        logs().lines().last().is_some_and(|l| l.starts_with("7999 "))
    });
    let text = logs();
    let first: usize = text.split(' ').next().unwrap().parse().unwrap();
    assert!(first > 0 && first < 7000, "the oldest output went, and no more than that: {first}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8000 - first, "nothing is missing in between");
}

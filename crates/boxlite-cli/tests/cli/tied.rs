//! `run --tie`: a box ends with the process that started it, however that ends, as root and as an ordinary user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use boxlite_testkit::deadline::until;
use boxlite_testkit::program::{Output, run};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::escape::also_as_nobody;
use crate::home::Home;
use crate::steward::{children, is_alive};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What runs in the boxes: it says that it runs, what it is asked for, and ends at that with 3.
const SCRIPT: &str = "for signal in HUP INT USR1 TERM; do trap \"echo told $signal; exit 3\" $signal; done; \
                      [ -s /kept ] || cat /proc/sys/kernel/random/uuid > /kept; \
                      echo up; while :; do sleep 0.2; done";

/// A tied box that is up, the command that started it, and the box's processes.
struct Step {
    command: Child,
    id: String,
    processes: Vec<Pid>,
}

impl Step {
    fn start(home: &Home, tie: &str, options: &[&str]) -> Self {
        let image = home.image("mini");
        let id_file = home.path().join("step.id");
        let _ = fs::remove_file(&id_file);
        let words = ["run", tie, "-m", "128m", "--network", "none", "--cidfile", id_file.to_str().unwrap()];
        let words = [&words[..], options, &[&image, "sh", "-c", SCRIPT]].concat();
        let mut command = home.command(words).process_group(0).spawn().expect("starting boxlite");
        let mut line = String::new();
        BufReader::new(command.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line == "up\n", "the box is not up: {:?}", Output::of(command));
        let id = fs::read_to_string(id_file).unwrap().trim().to_owned();
        let (_, shim) = Home::processes(&id).expect("the box's processes");
        let mut processes = vec![shim];
        let mut next = 0;
        while let Some(&parent) = processes.get(next) {
            processes.extend(children(parent));
            next += 1;
        }
        Self { command, id, processes }
    }

    /// Kills the command, as nothing in it can notice, and waits until no process of the box is left.
    fn kill(&mut self) {
        self.command.kill().unwrap();
        self.until_gone();
    }

    fn until_gone(&mut self) {
        self.command.wait().unwrap();
        for &process in &self.processes {
            until(TIMEOUT, "a process of the box to be gone", || !is_alive(process));
        }
    }
}

/// Mutation tried: a shim that makes no tie.
#[test]
fn a_box_goes_with_a_step_that_is_killed() {
    also_as_nobody("tied::a_box_goes_with_a_step_that_is_killed");
    let Some(home) = Home::able() else { return };
    let mut step = Step::start(&home, "--tie", &["--rm"]);
    let directory = home.path().join("boxes").join(&step.id);
    assert!(directory.exists());
    step.kill();
    // Without a command that would look for it.
    until(TIMEOUT, "the box's directory to be gone", || !directory.exists());
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");

    // All of the step at once, as an engine does that knows its process group.
    let mut step = Step::start(&home, "--tie", &["--rm"]);
    let directory = home.path().join("boxes").join(&step.id);
    kill_process_group(Pid::from_child(&step.command), Signal::KILL).unwrap();
    step.until_gone();
    until(TIMEOUT, "the box's directory to be gone", || !directory.exists());

    // A box that stays keeps what it has written, and gets no time for its command.
    let mut step = Step::start(&home, "--tie", &["--name", "kept"]);
    let kept = home.run(&["exec", "kept", "cat", "/kept"]).ok();
    step.kill();
    let told: serde_json::Value = serde_json::from_str(&home.run(&["inspect", "kept"]).ok()).unwrap();
    assert_eq!(told[0]["state"], "stopped", "{told}");
    home.run(&["start", "kept"]).ok();
    assert_eq!(home.run(&["exec", "kept", "cat", "/kept"]).ok(), kept);
}

/// As systemd stops a service, and some engines a job: every process gets the signal. It is the command's to end, as if the
/// step alone had got it. Before: QEMU ended at once, and the step with 125.
#[test]
fn what_is_sent_to_all_processes_of_a_step_is_for_its_command() {
    also_as_nobody("tied::what_is_sent_to_all_processes_of_a_step_is_for_its_command");
    let Some(home) = Home::able() else { return };
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
    {
        let step = Step::start(&home, "--tie", &["--rm"]);
        let own = Pid::from_child(&step.command);
        for &process in step.processes.iter().rev().chain([&own]) {
            // Root's boxes have users of their own, and what has ended cannot be asked.
            let _ = kill_process(process, signal);
        }
        let output = Output::within(step.command, TIMEOUT);
        assert_eq!((output.code(), output.text()), (Some(3), format!("told {name}\n")), "{output:?}");
        for process in step.processes {
            until(TIMEOUT, "a process of the box to be gone", || !is_alive(process));
        }
    }
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

/// Output that cannot be written ends neither the box's command nor the step before it; without standard input it has none.
#[test]
fn a_step_may_lack_its_input_and_room_for_its_output() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let words = [
        "run",
        "--tie",
        "--rm",
        "-m",
        "128m",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        "echo lost; read -r x; exit 4",
    ];
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Output::of(home.command(words).stdout(full).spawn().unwrap());
    assert!(output.code().is_some_and(|code| code != 0), "{output:?}");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    let closed = "exec \"$@\" <&-";
    let command = home.command(words);
    let mut shell = Command::new("sh");
    shell.args(["-c", closed, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = Output::of(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!((output.code(), output.text().as_str()), (Some(4), "lost\n"), "{output:?}");
}

/// A box that was not tied outlives its step.
#[test]
fn a_box_without_a_tie_outlives_a_step_that_is_killed() {
    let Some(home) = Home::able() else { return };
    let mut step = Step::start(&home, "--tie=false", &["--rm"]);
    step.command.kill().unwrap();
    step.command.wait().unwrap();
    assert_ne!(home.run(&["exec", &step.id, "cat", "/kept"]).ok(), "");
    home.run(&["run", "-d", "--tie", &home.image("mini"), "true"]).refused("--tie and --detach contradict");
}

/// Steps that are killed while their box is being made and started: none of them leaves a box that runs, or one that no
/// later command removes. Mutation tried: without the removal of boxes whose starter has ended.
#[test]
fn a_step_that_is_killed_before_its_box_runs_leaves_none() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "-q", &home.image("mini")]).ok();
    for point in ["create.recorded", "start.unrecorded", "start.recorded"] {
        let gate = home.path().join(format!("{point}.gate"));
        run(Command::new("mkfifo").arg(&gate));
        let image = home.image("mini");
        let words = ["run", "--tie", "--rm", "-m", "128m", "--network", "none", &image, "sleep", "infinity"];
        let mut command = home.command(words);
        command.env("BOXLITE_FAULT", format!("{point}=wait:{}", gate.display())).stderr(Stdio::null());
        let mut step = command.spawn().expect("starting boxlite");
        // Opens once the step has come to that point.
        let opened = fs::File::options().write(true).open(&gate).unwrap();
        kill_process(Pid::from_child(&step), Signal::KILL).unwrap();
        step.wait().unwrap();
        drop(opened);
        until(TIMEOUT, "the killed step's box to be gone", || {
            home.run(&["gc"]).ok();
            home.run(&["ls", "-aq"]).ok().is_empty()
        });
        assert_eq!(fs::read_dir(home.path().join("boxes")).unwrap().count(), 0, "{point}");
    }
}

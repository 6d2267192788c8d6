//! A disk that fills up under running boxes: who is paused, how that is seen, and how it ends.

use std::process::Command;
use std::time::Duration;

use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::program::{Output, run};
use boxlite_testkit::{deadline, oracle};

use crate::home::Home;

const MIB: u64 = 1 << 20;
const FLOORS: [(&str, &str); 5] = [
    ("BOXLITE_HARD_FLOOR", "140MiB"),
    ("BOXLITE_SOFT_FLOOR", "140MiB"),
    ("BOXLITE_SOFT_PERCENT", "0"),
    ("BOXLITE_EMERGENCY_FLOOR", "128MiB"),
    ("BOXLITE_CLAIM", "8MiB"),
];

/// How long a guest on a busy host may take to write some hundred mebibytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(240);

/// A home on a small filesystem of its own, with floors to match.
struct SmallHome {
    home: Home,
    disk: SmallFilesystem,
}

impl SmallHome {
    fn of(bytes: u64) -> Option<Self> {
        let home = Home::able()?;
        if oracle::skip_unless_root("mounting a small filesystem") {
            return None;
        }
        Some(Self { home, disk: SmallFilesystem::ext4(bytes, &["-m", "0"])? })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(arguments);
        command.envs(FLOORS).env("BOXLITE_HOME", self.disk.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Output::of(self.command(arguments).spawn().unwrap())
    }

    fn start(&self, name: &str) {
        self.run(&["run", "-d", "--name", name, &self.home.image("mini"), "sleep", "infinity"]).ok();
    }

    fn free(&self) -> u64 {
        boxlite_home::durable::free_space(self.disk.path()).unwrap().bytes
    }

    /// Leaves so many bytes free.
    fn leave(&self, wanted: u64) {
        let length = self.free().checked_sub(wanted).expect("less is free than wanted");
        let filler = self.disk.path().join("filler");
        run(Command::new("fallocate").arg("-l").arg(length.to_string()).arg(&filler));
    }

    fn make_room(&self) {
        std::fs::remove_file(self.disk.path().join("filler")).unwrap();
    }

    /// The line of `ls` for the box `name`.
    fn line(&self, name: &str) -> String {
        let table = self.run(&["ls", "-a", "--no-trunc"]).ok();
        table.lines().find(|line| line.ends_with(name)).expect("a line of that box").to_owned()
    }

    fn until_paused(&self, name: &str) {
        deadline::until(WRITE_TIMEOUT, "the box to be paused", || self.line(name).contains("Paused"));
    }
}

impl Drop for SmallHome {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.run(&["ls", "-a"]).text());
        }
        for id in self.run(&["ls", "-aq", "--no-trunc"]).text().split_whitespace() {
            self.run(&["rm", "-f", id]);
        }
    }
}

const WRITE: &str = "yes boxlite | head -c 200000000 > /root/file && sync && echo written > /root/done";
const SUM: &str = "yes boxlite | head -c 200000000 | sha256sum";

/// Mutations tried: without the case of a box that wrote nothing, the idle box is paused as well; without showing the
/// pause, `ls` says "Up" and the test waits in vain; without killing what was given up, `/root/ghost` appears.
#[test]
fn a_box_that_fills_the_disk_is_paused_for_all_to_see_and_resumes_by_itself() {
    let Some(home) = SmallHome::of(1024 * MIB) else { return };
    home.start("idle");
    home.start("writer");
    home.leave(200 * MIB);
    home.run(&["exec", "-d", "writer", "sh", "-c", WRITE]).ok();
    home.until_paused("writer");

    let line = home.line("writer");
    assert!(line.contains("Paused (host disk: ") && line.contains("free, resumes at 192 MiB)"), "{line}");
    assert!(home.line("idle").contains("Up "), "{}", home.line("idle"));
    assert!(home.free() > 16 * MIB, "room is left for others");
    let inspected = home.run(&["inspect", "writer"]).ok();
    for part in ["\"state\": \"paused\"", "\"reason\": \"host disk: ", "\"cause\": \"host_disk\""] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    assert!(home.run(&["info"]).text().contains("2 running, 1 of them paused"));
    assert_eq!(home.run(&["exec", "idle", "echo", "served"]).ok(), "served\n");
    assert!(home.run(&["ls", "--filter", "status=paused"]).ok().contains("writer"));

    for refused in [
        &["exec", "--no-wait", "writer", "true"][..],
        &["cp", "--no-wait", "writer:/etc/passwd", "-"],
        &["attach", "--no-wait", "writer"],
    ] {
        home.run(refused).lacks_room("box writer is paused (host disk: ");
    }
    for signal in ["TERM", "INT"] {
        let script = format!(
            "timeout -s {signal} 8 \"$0\" exec writer touch /root/ghost; test $? -ge 124 && echo ended"
        );
        let mut waiting = home.command(&[]);
        let program = waiting.get_program().to_owned();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(program);
        for (name, value) in waiting.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        waiting = shell;
        waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let waited = Output::within(waiting.spawn().unwrap(), Duration::from_secs(60));
        assert!(waited.text().contains("ended"), "{signal}: {waited:?}");
        assert!(waited.err.contains("box writer is paused (host disk: "), "{}", waited.err);
    }

    let waiting = home.command(&["exec", "writer", "echo", "after the pause"]).spawn().unwrap();
    home.make_room();
    assert_eq!(Output::within(waiting, WRITE_TIMEOUT).ok(), "after the pause\n");
    deadline::until(WRITE_TIMEOUT, "the write to end", || {
        home.run(&["exec", "writer", "cat", "/root/done"]).text() == "written\n"
    });
    assert!(home.line("writer").contains("Up "));
    let expected = run(Command::new("sh").arg("-c").arg(SUM));
    let sum = home.run(&["exec", "writer", "sha256sum", "/root/file"]).ok();
    assert_eq!(sum.split(' ').next(), expected.split(' ').next());
    assert_ne!(home.run(&["exec", "writer", "ls", "/root/ghost"]).code(), Some(0), "it was given up");
}

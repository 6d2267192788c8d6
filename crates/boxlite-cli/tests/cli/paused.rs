//! A disk that fills up under running boxes: who is paused, how that is seen, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::program::{Output, run};
use boxlite_testkit::{deadline, oracle};
use rustix::process::{Pid, Signal, kill_process};

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

    /// Leaves nothing free, down to the last block.
    fn fill_up(&self) {
        self.leave(2 * MIB);
        let rest = self.disk.path().join("rest");
        let _ =
            Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", rest.display())).output();
        run(&mut Command::new("sync"));
        assert!(self.free() < 64 << 10, "{} bytes are free", self.free());
    }

    /// Removes what [`SmallHome::fill_up`] wrote.
    fn empty(&self) {
        std::fs::remove_file(self.disk.path().join("rest")).unwrap();
        self.make_room();
        run(&mut Command::new("sync"));
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
    for signal in [Signal::TERM, Signal::INT] {
        let waiting = home.command(&["exec", "writer", "touch", "/root/ghost"]).spawn().unwrap();
        let waiter = Pid::from_child(&waiting);
        let said = Said::of(waiting);
        said.until("box writer is paused (host disk: ");
        kill_process(waiter, signal).unwrap();
        assert_ne!(said.ended().code(), Some(0));
    }
    through_a_server(&home);

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

/// Mutation tried: a session without notices, as before.
#[test]
fn a_session_says_once_that_its_box_was_paused_and_that_it_goes_on() {
    let Some(home) = SmallHome::of(1024 * MIB) else { return };
    let write = "dd if=/dev/urandom of=/root/file bs=1M count=16 conv=fsync";
    let script = format!("until [ -e /root/go ]; do sleep 0.1; done; {write}; sleep infinity");
    let image = home.home.image("mini");
    let session = |arguments: &[&str]| Said::of(home.command(arguments).spawn().unwrap());
    let run = session(&["run", "--name", "writer", &image, "sh", "-c", &script]);
    deadline::until(WRITE_TIMEOUT, "the box to run", || {
        home.run(&["exec", "writer", "true"]).code() == Some(0)
    });
    // Half of the floor is 64 MiB: from there on even a slow writer is paused.
    home.leave(70 * MIB);
    let attach = session(&["attach", "writer"]);
    let exec = session(&["exec", "writer", "sh", "-c", "touch /root/go; sleep infinity"]);
    let sessions = [run, attach, exec];
    home.until_paused("writer");
    for said in &sessions {
        said.until("boxlite: box writer is paused (host disk: ");
    }
    home.make_room();
    for said in &sessions {
        said.until("boxlite: box writer goes on");
    }
    home.run(&["rm", "-f", "writer"]).ok();
    for said in sessions {
        let text = Arc::clone(&said.text);
        said.ended();
        let text = text.lock().unwrap();
        for part in ["is paused", "goes on"] {
            assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
        }
    }
}

/// The pause of the box `writer` as a server shows it.
fn through_a_server(home: &SmallHome) {
    let mut serving = home.command(&["serve", "--port", "0"]).env("BOXLITE_LOG", "info").spawn().unwrap();
    let (pid, mut line) = (Pid::from_child(&serving), String::new());
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("boxlite: serving on ").unwrap().to_owned();
    let said = Said::of(serving);
    let remote = |arguments: &[&str]| {
        let mut command = home.command(&["--url", &url]);
        Output::of(command.args(arguments).env_remove("BOXLITE_HOME").spawn().unwrap())
    };
    assert!(remote(&["ls"]).ok().contains("Paused (host disk: "));
    for refused in
        [&["exec", "--no-wait", "writer", "true"][..], &["cp", "--no-wait", "writer:/etc/passwd", "-"]]
    {
        remote(refused).lacks_room("box writer is paused (host disk: ");
    }
    let get = |path: &str| {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/metrics").contains("boxlite_boxes{state=\"paused\"} 1"));
    assert!(get("/v1/boxes?status=paused").contains("\"status\":\"paused\""));
    said.until("a box is paused");
    kill_process(pid, Signal::TERM).unwrap();
    said.ended();
}

/// What a program says on standard error, while it runs.
struct Said {
    child: Child,
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Said {
    fn of(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let text = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, text, reader }
    }

    fn until(&self, part: &str) {
        deadline::until(Duration::from_secs(60), part, || self.text.lock().unwrap().contains(part));
    }

    fn ended(mut self) -> ExitStatus {
        let status = deadline::within(Duration::from_secs(60), "its end", || self.child.try_wait().unwrap());
        self.reader.join().unwrap();
        status
    }
}

#[test]
fn the_filesystem_of_a_volume_is_watched_like_the_homes() {
    let Some(home) = Home::able() else { return };
    if oracle::skip_unless_root("mounting a small filesystem") {
        return;
    }
    let Some(disk) = SmallFilesystem::ext4(512 * MIB, &["-m", "0"]) else { return };
    let volume = format!("{}:/shared", disk.path().display());
    let image = home.image("mini");
    let start = ["run", "-d", "--name", "writer", "-v", &volume, &image, "sleep", "infinity"];
    Output::of(home.command(start).envs(FLOORS).spawn().unwrap()).ok();
    let filler = disk.path().join("filler");
    let status = || home.run(&["ls", "-a", "--no-trunc"]).ok();
    assert!(status().contains("Up "), "{}", status());
    // What others write: the box's own writes would have failed at the hard floor.
    run(Command::new("fallocate").args(["-l", "440M"]).arg(&filler));
    deadline::until(WRITE_TIMEOUT, "the box to be paused", || {
        status().contains(&format!("Paused (disk of volume {}: ", disk.path().display()))
    });
    std::fs::remove_file(&filler).unwrap();
    let write = "yes boxlite | head -c 200000000 > /shared/file";
    home.run(&["exec", "writer", "sh", "-c", write]).ok();
    assert_eq!(std::fs::metadata(disk.path().join("file")).unwrap().len(), 200_000_000);
    assert!(status().contains("Up "), "{}", status());
}

#[test]
fn garbage_is_collected_for_a_box_that_is_about_to_be_paused() {
    let Some(home) = SmallHome::of(1024 * MIB) else { return };
    home.start("writer");
    let orphan = home.disk.path().join("images/disk-images").join("0a".repeat(32) + ".ext4");
    run(Command::new("fallocate").args(["-l", "300M"]).arg(&orphan));
    run(Command::new("touch").args(["-d", "2 hours ago"]).arg(&orphan));
    home.leave(200 * MIB);
    let script = format!("({WRITE}) >/dev/null 2>&1 &");
    home.run(&["exec", "writer", "sh", "-c", &script]).ok();
    deadline::until(WRITE_TIMEOUT, "the orphan to be collected", || !orphan.exists());
    deadline::until(WRITE_TIMEOUT, "the write to end", || {
        home.run(&["exec", "writer", "cat", "/root/done"]).text() == "written\n"
    });
}

/// The floor of the running box is low, so that its shim does not collect for it.
/// Mutation tried: a copy that is refused without a collection.
#[test]
fn garbage_is_collected_for_a_copy_that_would_be_refused() {
    let Some(home) = SmallHome::of(1024 * MIB) else { return };
    let image = home.home.image("mini");
    let mut start = home.command(&["run", "-d", "--name", "idle", &image, "sleep", "infinity"]);
    Output::of(start.env("BOXLITE_EMERGENCY_FLOOR", "1MiB").spawn().unwrap()).ok();
    let orphan = home.disk.path().join("images/disk-images").join("0a".repeat(32) + ".ext4");
    run(Command::new("fallocate").args(["-l", "300M"]).arg(&orphan));
    run(Command::new("touch").args(["-d", "2 hours ago"]).arg(&orphan));
    home.leave(100 * MIB);
    home.run(&["cp", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "idle:/root/"]).ok();
    assert!(!orphan.exists());
}

/// Data that stays in the guest's memory until somebody asks for it to be synced, and its checksum.
const HOLD_BACK: &str = "echo 0 > /proc/sys/vm/dirty_writeback_centisecs; \
                         echo 90 > /proc/sys/vm/dirty_background_ratio; echo 90 > /proc/sys/vm/dirty_ratio; \
                         head -c 24000000 /dev/urandom > /root/data; sha256sum /root/data";

/// The first stop is the second without a reserve: it shows that the data was held back in the guest.
#[test]
fn a_stop_on_a_full_disk_keeps_what_was_not_synced_or_says_that_it_was_lost() {
    let Some(home) = SmallHome::of(1024 * MIB) else { return };
    let without_reserve = |arguments: &[&str]| {
        Output::of(home.command(arguments).env("BOXLITE_FLUSH_RESERVE", "0").spawn().unwrap())
    };
    let image = home.home.image("mini");
    without_reserve(&["run", "-d", "--name", "lost", &image, "sleep", "infinity"]).ok();
    without_reserve(&["exec", "lost", "sh", "-c", HOLD_BACK]).ok();
    home.fill_up();
    without_reserve(&["stop", "-t", "1", "lost"]).refused("unflushed writes were lost");
    assert!(home.line("lost").contains("(unflushed writes were lost"), "{}", home.line("lost"));
    home.empty();

    home.start("kept");
    let reserve = home.disk.path().join("reserve-flush");
    let reserved = || boxlite_home::durable::allocated_of(&reserve).unwrap_or(0);
    assert_eq!(reserved(), 64 * MIB);
    let before = home.run(&["exec", "kept", "sh", "-c", HOLD_BACK]).ok();
    home.fill_up();
    home.run(&["ls"]).ok();
    assert_eq!(reserved(), 64 * MIB, "only stops release it");
    assert_eq!(home.run(&["stop", "-t", "1", "kept"]).ok(), "kept\n");
    assert_eq!(reserved(), 0);
    home.empty();
    home.run(&["start", "kept"]).ok();
    assert_eq!(home.run(&["exec", "kept", "sha256sum", "/root/data"]).ok(), before);
    assert_eq!(reserved(), 64 * MIB, "it is filled again once there is room");
}

//! What an escape from a guest gains: the system calls of an attacker who has taken QEMU, its user-mode network or the shim
//! over, made by those of a real box as the product jails and confines them, as root and as an ordinary user.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::oracle;
use rustix::process::Pid;

use crate::captive::CaptiveThread;
use crate::home::{Home, program};
use crate::steward::{children, steward_of};

/// What marks the run of a test by an ordinary user.
const AS_NOBODY: &str = "BOXLITE_TEST_AS_NOBODY";

const NOBODY: &str = "65534";

/// A process of a box that handles what the guest sends.
#[derive(Clone, Copy, PartialEq)]
enum Foothold {
    Qemu,
    Network,
    Shim,
    Steward,
}

/// What only the user-mode network's process may do, whose work it is.
const WORK_OF_NETWORK: [&str; 2] = ["socket", "connect to loopback"];

/// What the names of measures around the user-mode network begin with.
const OF_NETWORK: &str = "network process: ";

/// What those of the shim's begin with.
const OF_SHIM: &str = "shim: ";

/// What those of its steward's begin with.
const OF_STEWARD: &str = "steward: ";

/// A running box, and another one that the first has no business with.
struct Prey {
    home: Home,
    id: String,
    other: PathBuf,
    foothold: Foothold,
    /// The process that was taken over.
    taken: Pid,
    qemu: Pid,
    shim: Pid,
    listener: TcpListener,
}

impl Prey {
    /// Boxes in a home whose settings have `jail`, and their process `foothold`.
    fn new(jail: &str, foothold: Foothold) -> Option<Self> {
        let home = Home::able()?;
        home.run(&["ls"]).ok();
        fs::write(home.path().join("config.toml"), format!("jail = \"{jail}\"\n")).unwrap();
        let image = home.image("mini");
        let start = |name: &str| {
            let mut words = vec!["run", "-d", "-m", "128m", "--name", name];
            if foothold != Foothold::Network {
                words.extend(["--network", "none"]);
            }
            words.extend([&image, "sleep", "infinity"]);
            home.run(&words).ok().trim().to_owned()
        };
        // The third start of some hardware is restored from a template, where there are any.
        let other = home.path().join("boxes").join(start("other")).join("disks/root.qcow2");
        start("second");
        let id = start("prey");
        home.run(&["exec", "prey", "true"]).ok();
        let (qemu, shim) = match jail {
            "off" => unjailed(&id),
            _ => Home::processes(&id).unwrap(),
        };
        let taken = match foothold {
            Foothold::Qemu => qemu,
            Foothold::Network => network_below(shim).unwrap(),
            Foothold::Shim => shim,
            Foothold::Steward => steward_of(shim).unwrap(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Some(Self { home, id, other, foothold, taken, qemu, shim, listener })
    }

    /// The files that the attacks aim at.
    fn files(&self) -> Vec<(&'static str, String)> {
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let shim = self.shim.as_raw_nonzero();
        vec![
            ("another box's overlay", self.other.display().to_string()),
            ("the database", at("boxlite.db")),
            ("the settings", at("config.toml")),
            ("its own lock by name", at(&format!("boxes/{}/shim.lock", self.id))),
            ("the shadow file", "/etc/shadow".into()),
            ("the kernel's core pattern", "/proc/sys/kernel/core_pattern".into()),
            ("the shim's environment", format!("/proc/{shim}/environ")),
            ("the shim's memory", format!("/proc/{shim}/mem")),
        ]
    }

    /// The id of the other box.
    fn other_id(&self) -> String {
        let directory = self.other.parent().and_then(Path::parent).unwrap();
        directory.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The contents of the home's templates.
    fn templates(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.home.path().join("vm")).unwrap().map(|entry| entry.unwrap().path());
        let is_template =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("template");
        files.filter(is_template).map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }

    /// Where QEMU maps its guest's template from, as it spells it.
    fn template(&self) -> Option<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.qemu.as_raw_nonzero())).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("-incoming")
            .then(|| line.split("mem-path=").nth(1).unwrap().split(['\0', ',']).next().unwrap().to_owned())
    }
}

/// QEMU and its shim where there is no jailer between them.
fn unjailed(id: &str) -> (Pid, Pid) {
    let (qemu, _) = Home::processes(id).unwrap();
    let status = status_of(qemu);
    (qemu, Pid::from_raw(status["PPid"].parse().unwrap()).unwrap())
}

/// The user-mode network among the descendants of a process: the shim's program, or without a jail a QEMU without a machine.
fn network_below(process: Pid) -> Option<Pid> {
    let line = fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
    if line.windows(14).any(|part| part == b"boxlite-stack\0" || part == b"-machine\0none\0") {
        return Some(process);
    }
    children(process).into_iter().find_map(network_below)
}

/// The lines of a process's `status`.
fn status_of(process: Pid) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

const READ: u64 = libc::O_RDONLY as u64;
const WRITE: u64 = libc::O_RDWR as u64;
const HERE: u64 = libc::AT_FDCWD as u64;

/// How attempts went, by name: what the kernel answered.
type Attempts = BTreeMap<String, i64>;

fn open(thread: &mut CaptiveThread, path: &str, flags: u64) -> i64 {
    let path = thread.put_text(path);
    thread.call(libc::SYS_openat, &[HERE, path, flags])
}

/// Attempts that harm nobody where they succeed.
fn harmless(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = Attempts::new();
    for (name, path) in prey.files() {
        attempts.insert(format!("read {name}"), open(thread, &path, READ));
        if name != "the shim's environment" {
            attempts.insert(format!("write {name}"), open(thread, &path, WRITE));
        }
    }
    let port = prey.listener.local_addr().unwrap().port();
    let socket = thread.call(libc::SYS_socket, &[libc::AF_INET as u64, libc::SOCK_STREAM as u64]);
    let mut address = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    address.extend(port.to_be_bytes());
    address.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let address = thread.put(&address);
    attempts.insert("socket".into(), socket);
    attempts
        .insert("connect to loopback".into(), thread.call(libc::SYS_connect, &[socket as u64, address, 16]));
    let socket = thread.call(libc::SYS_socket, &[libc::AF_UNIX as u64, libc::SOCK_STREAM as u64]);
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(
        prey.home.path().join("boxes").join(&prey.id).join("shim.sock").as_os_str().as_encoded_bytes(),
    );
    address.push(0);
    let length = address.len() as u64;
    let address = thread.put(&address);
    attempts.insert(
        "connect to the shim".into(),
        thread.call(libc::SYS_connect, &[socket as u64, address, length]),
    );
    let shim = prey.shim.as_raw_nonzero().get() as u64;
    attempts.insert("signal the shim".into(), thread.call(libc::SYS_kill, &[shim, 0]));
    attempts.insert("handle of the shim".into(), thread.call(libc::SYS_pidfd_open, &[shim, 0]));
    attempts
}

/// Attempts that would end the test where they succeed. What QEMU's own sandbox answers with its end (execve, fork, mount,
/// setuid, unshare) is not among them; see `boxlite-jail`'s `nothing_is_gained_by_an_escape`.
fn harmful(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = Attempts::new();
    let shim = prey.shim.as_raw_nonzero().get() as u64;
    for (name, process) in [("the shim", shim), ("init", 1), ("everybody", u64::MAX)] {
        let mut try_call = |what: &str, number, arguments: &[u64]| {
            attempts.insert(format!("{what} {name}"), thread.call(number, arguments));
        };
        try_call("kill", libc::SYS_kill, &[process, libc::SIGKILL as u64]);
        try_call("tgkill", libc::SYS_tgkill, &[process, process, libc::SIGKILL as u64]);
        try_call("trace", libc::SYS_ptrace, &[u64::from(libc::PTRACE_ATTACH), process]);
        try_call("read the memory of", libc::SYS_process_vm_readv, &[process, 0, 0, 0, 0, 0]);
    }
    for descriptor in 0..300 {
        let result = thread.call(libc::SYS_flock, &[descriptor, libc::LOCK_UN as u64]);
        attempts.insert(format!("unlock descriptor {descriptor}"), result);
    }
    let root = thread.put_text("/");
    for (name, number, arguments) in [
        ("make a filesystem", libc::SYS_fsopen, vec![root, 0]),
        ("take a tree", libc::SYS_open_tree, vec![HERE, root, 1]),
        ("leave the root", libc::SYS_chroot, vec![root]),
        ("bpf", libc::SYS_bpf, vec![0, 0, 0]),
        ("io_uring", libc::SYS_io_uring_setup, vec![8, root]),
        ("userfaultfd", libc::SYS_userfaultfd, vec![0]),
        ("perf", libc::SYS_perf_event_open, vec![0]),
        ("make a file", libc::SYS_mknod, vec![root, 0o600]),
        ("make a directory", libc::SYS_mkdir, vec![root, 0o700]),
        ("filter by a listener", libc::SYS_seccomp, vec![1, 1 << 3, 0]),
    ] {
        attempts.insert(name.into(), thread.call(number, &arguments));
    }
    if prey.foothold == Foothold::Qemu
        && let Some(template) = prey.template()
    {
        let given = open(thread, &template, WRITE);
        assert!(given >= 0, "QEMU itself could open its template: {given}");
        let given = given as u64;
        attempts.insert("write the template".into(), thread.call(libc::SYS_pwrite64, &[given, root, 1, 0]));
        attempts.insert("cut the template".into(), thread.call(libc::SYS_ftruncate, &[given, 0]));
        let before = prey.templates();
        let punched = thread.call(libc::SYS_fallocate, &[given, 3, 0, 4096]);
        // QEMU is told that the hole is there, and there is none.
        let is_feigned = punched == 0 && prey.templates() == before;
        let refused = -i64::from(libc::EPERM);
        attempts.insert("punch the template".into(), if is_feigned { refused } else { punched });
        let (both, shared) = ((libc::PROT_READ | libc::PROT_WRITE) as u64, libc::MAP_SHARED as u64);
        let mapped = thread.call(libc::SYS_mmap, &[0, 4096, both, shared, given, 0]);
        attempts.insert("share the template".into(), mapped);
    }
    attempts
}

/// Runs the calling test `name` as `nobody` too, with programs and assets of its own. True in that run.
pub(crate) fn also_as_nobody(name: &str) -> bool {
    if std::env::var_os(AS_NOBODY).is_some() {
        return true;
    }
    if oracle::skip_unless_root("a second run as nobody") || !oracle::require("setpriv") {
        return false;
    }
    let Some(assets) = Assets::require() else { return false };
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("assets");
    let copied = Command::new("cp").arg("-rL").arg(assets.directory()).arg(&copy).status().unwrap();
    assert!(copied.success());
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)).unwrap();
    let as_nobody = |argument: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(argument).current_dir("/");
        command
    };
    let can_run = as_nobody(Path::new(program())).arg("version").output().unwrap().status.success();
    if !can_run {
        oracle::skip_even_in_ci(format_args!("nobody can't run {}", program()));
        return false;
    }
    let output = as_nobody(&std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(AS_NOBODY, "1")
        .env("TMPDIR", &temporary)
        .env("HOME", &temporary)
        .env("BOXLITE_ASSETS", &copy)
        .env("BOXLITE_TEST_IMAGE", copy.join("test-image"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "as nobody: {text}");
    println!("{text}");
    false
}

/// Attempts of the shim that harm nobody where they succeed: those of its steward, and on the files of the home.
fn harmless_from_shim(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = harmless_from_steward(prey, thread);
    for (name, path) in prey.files() {
        if !name.starts_with("the shim's") && !name.starts_with("the kernel's") {
            attempts.insert(format!("read {name}"), open(thread, &path, READ));
            attempts.insert(format!("write {name}"), open(thread, &path, WRITE));
        }
    }
    let at = |name: &str| prey.home.path().join(name).display().to_string();
    for (name, path) in [
        ("its own overlay", at(&format!("boxes/{}/disks/root.qcow2", prey.id))),
        ("its own log by name", at(&format!("boxes/{}/main.log", prey.id))),
        ("the home", at("")),
        ("all boxes", at("boxes")),
    ] {
        attempts.insert(format!("read {name}"), open(thread, &path, READ));
    }
    let create = (libc::O_CREAT | libc::O_WRONLY) as u64;
    let beside = at(&format!("boxes/{}/another", prey.id));
    attempts.insert("make a file in its box".into(), open(thread, &beside, create));
    attempts
}

/// Attempts of the steward that harm nobody where they succeed. The files of the home and the box's lock are its own.
fn harmless_from_steward(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = Attempts::new();
    let outside = tempfile::tempdir().unwrap();
    let create = (libc::O_CREAT | libc::O_WRONLY) as u64;
    let this = u64::from(std::process::id());
    let victim = prey.listener.local_addr().unwrap().port();
    for (name, path, flags) in [
        ("read the shadow file", "/etc/shadow".to_owned(), READ),
        ("write the shadow file", "/etc/shadow".into(), WRITE),
        ("write the kernel's core pattern", "/proc/sys/kernel/core_pattern".into(), WRITE),
        ("read another's environment", format!("/proc/{this}/environ"), READ),
        ("write another's memory", format!("/proc/{this}/mem"), WRITE),
        ("make a file elsewhere", outside.path().join("authorized_keys").display().to_string(), create),
    ] {
        attempts.insert(name.into(), open(thread, &path, flags));
    }
    let socket = thread.call(libc::SYS_socket, &[libc::AF_INET as u64, libc::SOCK_STREAM as u64]);
    attempts.insert("socket".into(), socket);
    let mut address = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    address.extend(victim.to_be_bytes());
    address.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let address = thread.put(&address);
    attempts
        .insert("connect to loopback".into(), thread.call(libc::SYS_connect, &[socket as u64, address, 16]));
    let datagram = thread.call(libc::SYS_socket, &[libc::AF_UNIX as u64, libc::SOCK_DGRAM as u64]);
    attempts.insert("socket that sends to anybody".into(), datagram);
    attempts.insert("signal another".into(), thread.call(libc::SYS_kill, &[this, 0]));
    attempts.insert("signal everybody".into(), thread.call(libc::SYS_kill, &[u64::MAX, 0]));
    attempts.insert("handle of another".into(), thread.call(libc::SYS_pidfd_open, &[this, 0]));
    attempts
}

/// Attempts of the shim that would end the test, or the box, where they succeed: those of its steward, and to release locks.
fn harmful_from_shim(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = harmful_from_steward(thread);
    for descriptor in 0..100 {
        let result = thread.call(libc::SYS_flock, &[descriptor, libc::LOCK_UN as u64]);
        attempts.insert(format!("unlock descriptor {descriptor}"), result);
        // All of the file: type, from where, start, length.
        let region = thread
            .put(&[libc::F_UNLCK as u8, 0, 0, 0, 0, 0, 0, 0].into_iter().chain([0; 24]).collect::<Vec<u8>>());
        let result = thread.call(libc::SYS_fcntl, &[descriptor, libc::F_OFD_SETLK as u64, region]);
        attempts.insert(format!("unlock the ranges of descriptor {descriptor}"), result);
    }
    for (name, process) in [
        ("its steward", steward_of(prey.shim).unwrap()),
        ("another box's QEMU", Home::processes(&prey.other_id()).unwrap().0),
    ] {
        let process = process.as_raw_nonzero().get() as u64;
        attempts
            .insert(format!("kill {name}"), thread.call(libc::SYS_kill, &[process, libc::SIGKILL as u64]));
        attempts.insert(format!("handle of {name}"), thread.call(libc::SYS_pidfd_open, &[process, 0]));
    }
    let lock = thread
        .put_text(&prey.home.path().join("boxes").join(&prey.id).join("shim.lock").display().to_string());
    attempts.insert("remove its lock".into(), thread.call(libc::SYS_unlink, &[lock]));
    attempts.insert("rename its lock".into(), thread.call(libc::SYS_rename, &[lock, lock]));
    attempts.insert("become root".into(), thread.call(libc::SYS_setuid, &[0]));
    attempts
}

/// Attempts of the steward that would end the test, or the box, where they succeed.
fn harmful_from_steward(thread: &mut CaptiveThread) -> Attempts {
    let mut attempts = Attempts::new();
    let this = u64::from(std::process::id());
    let program = thread.put_text("/bin/true");
    for (name, number, arguments) in [
        ("execute a program", libc::SYS_execve, vec![program, 0, 0]),
        ("execute another program", libc::SYS_execveat, vec![HERE, program, 0, 0, 0]),
        ("fork", libc::SYS_clone, vec![libc::SIGCHLD as u64]),
        ("clone", libc::SYS_clone3, vec![program, 88]),
        ("trace another", libc::SYS_ptrace, vec![u64::from(libc::PTRACE_ATTACH), this]),
        ("read another's memory", libc::SYS_process_vm_readv, vec![this, 0, 0, 0, 0, 0]),
        ("kill a thread of another", libc::SYS_tgkill, vec![this, this, libc::SIGKILL as u64]),
        ("kill another", libc::SYS_kill, vec![this, libc::SIGKILL as u64]),
        ("kill another by a thread", libc::SYS_tkill, vec![this, libc::SIGKILL as u64]),
        ("make a filesystem", libc::SYS_fsopen, vec![program, 0]),
        ("take a tree", libc::SYS_open_tree, vec![HERE, program, 1]),
        ("make namespaces", libc::SYS_unshare, vec![libc::CLONE_NEWUSER as u64]),
        ("leave the root", libc::SYS_chroot, vec![program]),
        ("bpf", libc::SYS_bpf, vec![0, 0, 0]),
        ("io_uring", libc::SYS_io_uring_setup, vec![8, program]),
        ("change the time", libc::SYS_clock_settime, vec![0, program]),
        // The same under its number of the x32 calling convention, which a list of numbers would not find.
        ("socket of x32", libc::SYS_socket | 1 << 30, vec![libc::AF_INET as u64, libc::SOCK_STREAM as u64]),
        ("kill another of x32", libc::SYS_kill | 1 << 30, vec![this, libc::SIGKILL as u64]),
    ] {
        attempts.insert(name.into(), thread.call(number, &arguments));
    }
    attempts
}

/// The attempts of somebody who has taken the prey's foothold over: those that harm nobody.
fn first_attempts(prey: &Prey, thread: &mut CaptiveThread) -> Attempts {
    match prey.foothold {
        Foothold::Shim => harmless_from_shim(prey, thread),
        Foothold::Steward => harmless_from_steward(prey, thread),
        Foothold::Qemu | Foothold::Network => harmless(prey, thread),
    }
}

/// Makes the attempts of somebody who has taken `foothold` over, and expects each to fail.
fn gain_nothing(foothold: Foothold) {
    let Some(prey) = Prey::new("on", foothold) else { return };
    let mut thread = match CaptiveThread::take(prey.taken) {
        Ok(thread) => thread,
        Err(error) => return oracle::skip_even_in_ci(format_args!("this user may not trace QEMU: {error}")),
    };
    let expect_failure = |attempts: &Attempts| {
        for (name, &result) in attempts {
            if foothold == Foothold::Network && WORK_OF_NETWORK.contains(&name.as_str()) {
                assert!(result >= 0, "{name}: {result}");
            } else {
                assert!((-4095..0).contains(&result), "{name}: {result}");
            }
        }
    };
    let mut attempts = first_attempts(&prey, &mut thread);
    // Before the others: where these succeed, those may not return.
    expect_failure(&attempts);
    attempts.extend(match foothold {
        Foothold::Shim => harmful_from_shim(&prey, &mut thread),
        Foothold::Steward => harmful_from_steward(&mut thread),
        Foothold::Qemu | Foothold::Network => harmful(&prey, &mut thread),
    });
    drop(thread);
    assert!(attempts.len() > if foothold == Foothold::Steward { 25 } else { 200 }, "{attempts:?}");
    expect_failure(&attempts);
    // The box is none the worse for it, and is known to run.
    prey.home.run(&["exec", "prey", "true"]).ok();
    prey.home.run(&["rm", "prey"]).refused("running");
    let measures: Vec<_> = measures(&prey.home).into_iter().filter(|told| told.of == foothold).collect();
    assert!(measures.len() > 5, "{} measures", measures.len());
    for measure in measures {
        check(&prey, &measure);
    }
}

/// Mutation tried: with `jail = off` in the home's settings every harmless attempt of root succeeds; see below.
#[test]
fn a_guest_that_takes_over_qemu_gains_nothing() {
    also_as_nobody("escape::a_guest_that_takes_over_qemu_gains_nothing");
    gain_nothing(Foothold::Qemu);
}

#[test]
fn a_guest_that_takes_over_its_network_gains_the_network_alone() {
    also_as_nobody("escape::a_guest_that_takes_over_its_network_gains_the_network_alone");
    gain_nothing(Foothold::Network);
}

#[test]
fn a_guest_that_takes_over_the_shim_gains_its_open_files_alone() {
    also_as_nobody("escape::a_guest_that_takes_over_the_shim_gains_its_open_files_alone");
    gain_nothing(Foothold::Shim);
}

/// Mutation tried: without the confinement the first attempt looked at, to connect to loopback, succeeds for root.
#[test]
fn whoever_takes_over_the_steward_gains_the_home_alone() {
    also_as_nobody("escape::whoever_takes_over_the_steward_gains_the_home_alone");
    gain_nothing(Foothold::Steward);
}

#[test]
fn without_the_jail_root_gains_all_of_it() {
    if oracle::skip_unless_root("everything that QEMU could do to its host") {
        return;
    }
    for foothold in [Foothold::Qemu, Foothold::Network, Foothold::Shim, Foothold::Steward] {
        let Some(prey) = Prey::new("off", foothold) else { return };
        let notice = prey.home.run(&["restart", "second"]);
        assert!(notice.err.contains("starts without a jail"), "{notice:?}");
        let mut thread = CaptiveThread::take(prey.taken).unwrap();
        for (name, result) in first_attempts(&prey, &mut thread) {
            assert!(result >= 0, "{name}: {result}");
        }
    }
}

/// A measure as `info` tells of it.
struct ToldMeasure {
    of: Foothold,
    name: String,
    in_force: bool,
    detail: String,
}

fn measures(home: &Home) -> Vec<ToldMeasure> {
    let text = home.run(&["info", "--format", "json"]).ok();
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["jail"]["on"], true);
    let told = |measure: &serde_json::Value| {
        let name = measure["name"].as_str().unwrap();
        let others =
            [(OF_NETWORK, Foothold::Network), (OF_SHIM, Foothold::Shim), (OF_STEWARD, Foothold::Steward)];
        let told_of = |(prefix, of)| name.strip_prefix(prefix).map(|name| (of, name));
        let (of, name) = others.into_iter().find_map(told_of).unwrap_or((Foothold::Qemu, name));
        ToldMeasure {
            of,
            name: name.into(),
            in_force: measure["in_force"].as_bool().unwrap(),
            detail: measure["detail"].as_str().unwrap().into(),
        }
    };
    info["jail"]["measures"].as_array().unwrap().iter().map(told).collect()
}

/// Looks at the running process whether what `info` says of a measure is so.
fn check(prey: &Prey, measure: &ToldMeasure) {
    let ToldMeasure { of, name, in_force, detail } = measure;
    let process = PathBuf::from(format!("/proc/{}", prey.taken.as_raw_nonzero()));
    let status = status_of(prey.taken);
    let is_root = rustix::process::geteuid().is_root();
    let namespace = |of: &Path, name: &str| fs::read_link(of.join("ns").join(name)).unwrap();
    let is_apart = |name: &str| namespace(&process, name) != namespace(Path::new("/proc/self"), name);
    let found = match name.as_str() {
        "memory limit" | "task limit" | "processor limit" => {
            let controller =
                name.split(' ').next().unwrap().replace("task", "pids").replace("processor", "cpu");
            let groups = fs::read_to_string(process.join("cgroup")).unwrap();
            let is_of = |line: &&str| {
                line.split(':').nth(1).is_some_and(|of| of.contains(&controller) || of.is_empty())
            };
            groups.lines().filter(is_of).any(|line| line.ends_with(&format!("boxlite/{}", prey.id)))
        }
        "control group" => {
            let groups = fs::read_to_string(process.join("cgroup")).unwrap();
            groups.lines().any(|line| line.ends_with(&format!("boxlite/{}", prey.id)))
        }
        // The detail names the file of the group that tried it out.
        "cgroup.kill" => {
            let of_trial = Path::new(detail).parent().and_then(Path::parent);
            of_trial.is_some_and(|groups| groups.join(&prey.id).join(name).exists())
        }
        "namespaces" => detail.split(", ").all(|name| is_apart(if name == "mount" { "mnt" } else { name })),
        "network" => is_apart("net"),
        // Nothing of the host's directories but those that QEMU's files lie in.
        "root" => {
            let known = ["dev", "etc", "lib", "lib64", "usr", "opt"];
            // The network is the shim's program, at the path of that.
            let own = Path::new(env!("CARGO_BIN_EXE_boxlite-shim")).components().nth(1).unwrap();
            let own = matches!(prey.foothold, Foothold::Network).then(|| own.as_os_str().to_owned());
            let names = fs::read_dir(process.join("root")).unwrap();
            let names = names.flatten().map(|entry| entry.file_name());
            names.into_iter().all(|name| known.contains(&name.to_str().unwrap()) || Some(name) == own)
        }
        "user" => {
            let ids: Vec<&str> = status["Uid"].split(' ').collect();
            let is_own = ids[0].get(..4).is_some_and(|begin| detail.starts_with(begin))
                && ids.iter().all(|id| id == &ids[0]);
            is_own && ids[0] != "0" && status["Gid"] == status["Uid"]
        }
        "groups" => status["Groups"].is_empty(),
        "capabilities" => ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .iter()
            // An ordinary user may not empty the set that bounds what it cannot gain any more.
            .filter(|set| !matches!(of, Foothold::Shim | Foothold::Steward) || is_root || **set != "CapBnd")
            .all(|set| status[*set].trim_matches('0').is_empty()),
        "environment" => {
            let environment = fs::read_to_string(process.join("environ")).unwrap();
            environment.split_terminator('\0').all(|variable| variable.starts_with("BOXLITE_"))
        }
        "no_new_privs" => status["NoNewPrivs"] == "1",
        "system calls" => {
            // The jail's and QEMU's own, and for QEMU the one that has its openings answered. A network of libslirp is no QEMU.
            let least = match of {
                Foothold::Qemu | Foothold::Shim => 3,
                Foothold::Steward => 2,
                Foothold::Network => 1,
            };
            status["Seccomp"] == "2" && status["Seccomp_filters"].parse::<u32>().unwrap() >= least
        }
        "limits" => {
            let limits = fs::read_to_string(process.join("limits")).unwrap();
            let has = |name: &str, most: &str| {
                let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
                line[name.len()..].split_whitespace().take(2).all(|value| value == most)
            };
            has("Max open files", detail.split(' ').next().unwrap()) && has("Max core file size", "0")
        }
        "descriptors" => {
            let open = fs::read_dir(process.join("fd")).unwrap().flatten();
            let files: Vec<PathBuf> = open.map(|entry| fs::read_link(entry.path()).unwrap()).collect();
            let is_its_own = |file: &&PathBuf| {
                let name = file.to_str().unwrap();
                name.ends_with(&format!("{}/disks/root.qcow2", prey.id))
                    || name.contains("/images/disk-images/")
                    || name.contains("/vm/")
            };
            files.iter().filter(|file| file.starts_with(prey.home.path())).all(|file| is_its_own(&file))
        }
        "lock" => {
            let lock = fs::metadata(prey.home.path().join("boxes").join(&prey.id).join("shim.lock")).unwrap();
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains("FLOCK") && line.contains(&format!(":{} ", lock.ino())))
        }
        // The attempts above; the kernel shows it nowhere.
        "Landlock" | "templates" => *in_force,
        unknown => panic!("nothing looks at the measure {unknown}"),
    };
    let may_differ = !is_root && name == "groups";
    assert!(found == *in_force || may_differ, "{name} ({detail}) is told as {in_force}");
}

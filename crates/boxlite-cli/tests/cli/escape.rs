//! What an escape from a guest gains: the system calls of an attacker who has taken QEMU over, made by a real box's QEMU
//! in the jail that the product builds for it, as root and as an ordinary user.

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

/// What marks the run of a test by an ordinary user.
const AS_NOBODY: &str = "BOXLITE_TEST_AS_NOBODY";

const NOBODY: &str = "65534";

/// A running box without a network, and another one that the first has no business with.
struct Prey {
    home: Home,
    id: String,
    other: PathBuf,
    qemu: Pid,
    shim: Pid,
    listener: TcpListener,
}

impl Prey {
    /// Boxes in a home whose settings have `jail`.
    fn new(jail: &str) -> Option<Self> {
        let home = Home::able()?;
        home.run(&["ls"]).ok();
        fs::write(home.path().join("config.toml"), format!("jail = \"{jail}\"\n")).unwrap();
        let image = home.image("mini");
        let start = |name: &str| {
            let words =
                ["run", "-d", "--network", "none", "-m", "128m", "--name", name, &image, "sleep", "infinity"];
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Some(Self { home, id, other, qemu, shim, listener })
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
    if let Some(template) = prey.template() {
        let given = open(thread, &template, WRITE);
        assert!(given >= 0, "QEMU itself could open its template: {given}");
        let given = given as u64;
        attempts.insert("write the template".into(), thread.call(libc::SYS_pwrite64, &[given, root, 1, 0]));
        attempts.insert("cut the template".into(), thread.call(libc::SYS_ftruncate, &[given, 0]));
        attempts.insert("punch the template".into(), thread.call(libc::SYS_fallocate, &[given, 3, 0, 4096]));
        let (both, shared) = ((libc::PROT_READ | libc::PROT_WRITE) as u64, libc::MAP_SHARED as u64);
        let mapped = thread.call(libc::SYS_mmap, &[0, 4096, both, shared, given, 0]);
        attempts.insert("share the template".into(), mapped);
    }
    attempts
}

/// Runs the calling test `name` as `nobody` too, with programs and assets of its own. True in that run.
fn also_as_nobody(name: &str) -> bool {
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

/// Mutation tried: with `jail = off` in the home's settings every harmless attempt of root succeeds; see below.
#[test]
fn a_guest_that_takes_over_qemu_gains_nothing() {
    also_as_nobody("escape::a_guest_that_takes_over_qemu_gains_nothing");
    let Some(prey) = Prey::new("on") else { return };
    let mut thread = match CaptiveThread::take(prey.qemu) {
        Ok(thread) => thread,
        Err(error) => return oracle::skip_even_in_ci(format_args!("this user may not trace QEMU: {error}")),
    };
    let mut attempts = harmless(&prey, &mut thread);
    attempts.extend(harmful(&prey, &mut thread));
    drop(thread);
    assert!(attempts.len() > 300, "{attempts:?}");
    for (name, result) in attempts {
        assert!((-4095..0).contains(&result), "{name}: {result}");
    }
    // The box is none the worse for it, and is known to run.
    prey.home.run(&["exec", "prey", "true"]).ok();
    prey.home.run(&["rm", "prey"]).refused("running");
    for measure in measures(&prey.home) {
        check(&prey, &measure);
    }
}

#[test]
fn without_the_jail_root_gains_all_of_it() {
    if oracle::skip_unless_root("everything that QEMU could do to its host") {
        return;
    }
    let Some(prey) = Prey::new("off") else { return };
    let notice = prey.home.run(&["restart", "second"]);
    assert!(notice.err.contains("starts without a jail"), "{notice:?}");
    let mut thread = CaptiveThread::take(prey.qemu).unwrap();
    for (name, result) in harmless(&prey, &mut thread) {
        assert!(result >= 0, "{name}: {result}");
    }
}

/// A measure as `info` tells of it.
struct ToldMeasure {
    name: String,
    in_force: bool,
    detail: String,
}

fn measures(home: &Home) -> Vec<ToldMeasure> {
    let text = home.run(&["info", "--format", "json"]).ok();
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["jail"]["on"], true);
    let told = |measure: &serde_json::Value| ToldMeasure {
        name: measure["name"].as_str().unwrap().into(),
        in_force: measure["in_force"].as_bool().unwrap(),
        detail: measure["detail"].as_str().unwrap().into(),
    };
    let measures: Vec<_> = info["jail"]["measures"].as_array().unwrap().iter().map(told).collect();
    assert!(measures.len() > 10, "{text}");
    measures
}

/// Looks at the running QEMU whether what `info` says of a measure is so.
fn check(prey: &Prey, measure: &ToldMeasure) {
    let ToldMeasure { name, in_force, detail } = measure;
    let process = PathBuf::from(format!("/proc/{}", prey.qemu.as_raw_nonzero()));
    let status = status_of(prey.qemu);
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
        "namespaces" => detail.split(", ").all(|name| is_apart(if name == "mount" { "mnt" } else { name })),
        "network" => is_apart("net"),
        // Nothing of the host's directories but those that QEMU's files lie in.
        "root" => {
            let known = ["dev", "etc", "lib", "lib64", "usr", "opt"];
            let names = fs::read_dir(process.join("root")).unwrap();
            names.flatten().all(|entry| known.contains(&entry.file_name().to_str().unwrap()))
        }
        "user" => {
            let ids: Vec<&str> = status["Uid"].split(' ').collect();
            let is_own = detail.starts_with(&ids[0][..4]) && ids.iter().all(|id| id == &ids[0]);
            is_own && ids[0] != "0" && status["Gid"] == status["Uid"]
        }
        "groups" => status["Groups"].is_empty(),
        "capabilities" => ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .iter()
            .all(|set| status[*set].trim_matches('0').is_empty()),
        "no_new_privs" => status["NoNewPrivs"] == "1",
        "system calls" => status["Seccomp"] == "2" && status["Seccomp_filters"].parse::<u32>().unwrap() >= 3,
        "limits" => {
            let limits = fs::read_to_string(process.join("limits")).unwrap();
            let has = |name: &str, most: &str| {
                let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
                line[name.len()..].split_whitespace().take(2).all(|value| value == most)
            };
            has("Max open files", "256") && has("Max core file size", "0")
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
        "network of a box that has one" => false,
        unknown => panic!("nothing looks at the measure {unknown}"),
    };
    let may_differ = !is_root && name == "groups";
    assert!(found == *in_force || may_differ, "{name} ({detail}) is told as {in_force}");
}

//! The jail, from outside and from inside: as root and as an ordinary user.
//!
//! A test that a user other than root must pass as well runs itself again as `nobody`.

#![allow(unsafe_code)]

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use boxlite_jail::{CgroupSpec, Filling, JailIdentity, JailSpec, MeasureState, NetworkScope, Opening};
use support::{also_as_nobody, copied, is_root, launch, launch_in_private, lines, plain_spec, probe, wait};

/// What the attacks aim at, all of which exist.
struct Targets {
    _directory: tempfile::TempDir,
    overlay: File,
    base: File,
    template: File,
    kernel: File,
    lock: File,
    template_path: std::path::PathBuf,
    arguments: Vec<String>,
    _listeners: Vec<TcpListener>,
    _socket: std::os::unix::net::UnixListener,
}

impl Targets {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let make = |name: &str| {
            std::fs::write(at(name), vec![b'o'; 8192]).unwrap();
            File::options().read(true).write(true).open(at(name)).unwrap()
        };
        let read_only = |name: &str| {
            make(name);
            File::open(at(name)).unwrap()
        };
        let (overlay, lock) = (make("overlay.qcow2"), make("shim.lock"));
        let (base, template) = (read_only("base.ext4"), read_only("template"));
        let kernel = read_only("kernel");
        kernel.set_permissions(Permissions::from_mode(0o644)).unwrap();
        make("other.qcow2");
        make("boxlite.db");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listeners = vec![loopback];
        let mut arguments = vec![format!("loopback={}", listeners[0].local_addr().unwrap())];
        // An address of the host that is not its loopback, where it has one.
        if let Some(listener) = lan_address().and_then(|address| TcpListener::bind((address, 0)).ok()) {
            arguments.push(format!("lan={}", listener.local_addr().unwrap()));
            listeners.push(listener);
        }
        let socket = std::os::unix::net::UnixListener::bind(at("shim.sock")).unwrap();
        let shim = std::process::id();
        arguments.extend([
            format!("other-overlay={}", at("other.qcow2").display()),
            format!("database={}", at("boxlite.db").display()),
            "shadow=/etc/shadow".into(),
            format!("environ=/proc/{shim}/environ"),
            format!("mem=/proc/{shim}/mem"),
            format!("socket={}", at("shim.sock").display()),
            format!("shim={shim}"),
            format!("address={}", std::ptr::from_ref(&ADDRESS) as usize),
            format!("overlay={}", overlay.as_raw_fd()),
            format!("base={}", base.as_raw_fd()),
            format!("guard={}", lock.as_raw_fd()),
            "template=/boxlite/memory".into(),
            "kernel=/boxlite/kernel".into(),
            "gate=264".into(),
            "open-files=256".into(),
        ]);
        let template_path = at("template");
        Self {
            _directory: directory,
            overlay,
            base,
            template,
            kernel,
            lock,
            template_path,
            arguments,
            _listeners: listeners,
            _socket: socket,
        }
    }

    fn spec(&self) -> JailSpec {
        JailSpec {
            arguments: self.arguments.iter().map(Into::into).collect(),
            descriptors: vec![self.overlay.as_raw_fd(), self.base.as_raw_fd()],
            openings: vec![
                Opening {
                    path: "/boxlite/memory".into(),
                    descriptor: self.template.as_raw_fd(),
                    reads_only: false,
                    feigns_holes: true,
                },
                Opening {
                    path: "/boxlite/kernel".into(),
                    descriptor: self.kernel.as_raw_fd(),
                    reads_only: true,
                    feigns_holes: false,
                },
            ],
            guard: Some(self.lock.as_raw_fd()),
            ..plain_spec(&probe())
        }
    }
}

/// Read by the probe from another process.
static ADDRESS: u8 = 1;

fn lan_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

/// What a probe said: how each attempt went, and facts.
fn outcomes(text: &str) -> (HashMap<String, String>, HashMap<String, String>) {
    let (mut attempts, mut facts) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        match name.strip_prefix('=') {
            Some(name) => facts.insert(name.to_owned(), value.to_owned()),
            None => attempts.insert(name.to_owned(), value.to_owned()),
        };
    }
    (attempts, facts)
}

/// A hole in the template is feigned: the call succeeds, and the template is as it was.
///
/// Mutations tried: without the system call filter, the probe was ended by one of its own attempts to kill; without
/// entering the root, the database and all other files were open.
#[test]
fn nothing_is_gained_by_an_escape() {
    also_as_nobody("nothing_is_gained_by_an_escape");
    let targets = Targets::new();
    expect_nothing_gained(&targets, lines(launch(&targets.spec()).unwrap()));
}

/// The same in a jail that a copy of the starter builds, which has neither a file nor a signal handler of the starter's own.
#[test]
fn nothing_is_gained_by_an_escape_where_the_jailer_is_a_copy() {
    also_as_nobody("nothing_is_gained_by_an_escape_where_the_jailer_is_a_copy");
    let targets = Targets::new();
    let (text, status) = copied(&targets.spec());
    let (_, facts) = outcomes(&text);
    assert_eq!(facts.get("own files of the jailer").map_or("0", String::as_str), "0");
    assert!(!is_root() || facts.contains_key("own files of the jailer"));
    assert_eq!(facts["jailer catches"], "0");
    expect_nothing_gained(&targets, (text, status));
    let ended = |argument: &str| {
        copied(&JailSpec { arguments: vec![argument.into()], ..plain_spec(&probe()) }).1.code()
    };
    assert_eq!((ended("exit=7"), ended("die=6")), (Some(7), Some(128 + 6)));
}

/// A file that the program's user may not read is not in the root, and every call that opens something is held for it.
#[test]
fn a_file_that_is_only_read_is_found_whoever_may_read_it() {
    also_as_nobody("a_file_that_is_only_read_is_found_whoever_may_read_it");
    for (mode, is_in_root) in [(0o600, !is_root()), (0o640, !is_root()), (0o644, true)] {
        let targets = Targets::new();
        targets.kernel.set_permissions(Permissions::from_mode(mode)).unwrap();
        let (text, _) = lines(launch(&targets.spec()).unwrap());
        let (attempts, facts) = outcomes(&text);
        for name in ["can-read-kernel", "can-read-kernel-as-libraries", "can-open-template"] {
            assert_eq!(attempts[name], "ok", "{name}, mode {mode:o}");
        }
        for name in ["write kernel", "truncate kernel"] {
            assert_ne!(attempts[name], "ok", "{name}, mode {mode:o}");
        }
        assert_eq!(facts["root"].split(' ').any(|name| name == "boxlite"), is_in_root, "mode {mode:o}");
    }
    // One that has another's name by now is not taken for it.
    let targets = Targets::new();
    let name = targets.template_path.with_file_name("kernel");
    std::fs::rename(&name, name.with_file_name("renamed")).unwrap();
    std::fs::write(&name, "").unwrap();
    std::fs::remove_file(name.with_file_name("renamed")).unwrap();
    let (attempts, _) = outcomes(&lines(launch(&targets.spec()).unwrap()).0);
    assert_eq!(attempts["can-read-kernel"], "ok");
}

/// Mutation tried: the starter's mask kept, with which the box's user finds none of its devices.
#[test]
fn a_mask_of_the_starter_does_not_reach_into_the_jail() {
    also_as_nobody("a_mask_of_the_starter_does_not_reach_into_the_jail");
    let targets = Targets::new();
    let (attempts, _) = outcomes(&lines(launch_in_private(&targets.spec()).unwrap()).0);
    assert_eq!(attempts["can-read-kernel"], "ok");
}

#[test]
fn a_process_with_threads_is_not_copied() {
    let spec = plain_spec(&probe());
    let begun =
        boxlite_jail::begin_by_copy(std::process::Command::new(probe()), &spec, |_, _, _| unreachable!());
    let error = begun.unwrap_err().to_string();
    assert!(error.contains("threads"), "{error}");
}

fn expect_nothing_gained(targets: &Targets, (text, status): (String, std::process::ExitStatus)) {
    assert!(status.success(), "{status}: {text}");
    let (attempts, facts) = outcomes(&text);
    assert!(attempts.len() > 120, "{} attempts: {text}", attempts.len());
    for (name, outcome) in &attempts {
        assert_eq!(outcome == "ok", name.starts_with("can-"), "{name}: {outcome}");
    }
    assert_eq!(facts["pid"], "2");
    assert_eq!(facts["no_new_privs"], "1");
    assert_eq!(facts["seccomp"], "2");
    assert_eq!(facts["capabilities"], "[0, 0, 0, 0, 0, 0]");
    assert_eq!(facts["core"], "0");
    assert_eq!(facts["fsize"], (64 << 20).to_string());
    assert_eq!(facts["environment"], "LC_ALL=C");
    let id = if is_root() { support::RESERVED } else { rustix::process::getuid().as_raw() };
    assert_eq!(facts["uid"], id.to_string());
    let shared = ["boxlite", "dev", "etc", "lib", "lib64", "usr"];
    let top = facts["root"].split(' ').filter(|name| !shared.contains(name));
    let own = probe();
    let own = own.components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned();
    assert_eq!(top.collect::<Vec<_>>(), [own], "{}", facts["root"]);
    let template = std::fs::read(&targets.template_path).unwrap();
    assert!(template == vec![b'o'; 8192], "the template was written to");
    let base = targets.base.metadata().unwrap();
    assert_eq!(base.size(), 8192);
}

/// The attempts are real: without the jail, root succeeds at every one that can be tried without harm.
#[test]
fn the_same_attempts_succeed_without_the_jail() {
    if !is_root() {
        eprintln!("skipped: only root succeeds at all of them");
        return;
    }
    let targets = Targets::new();
    let mut command = std::process::Command::new(probe());
    let output = command.args(&targets.arguments).arg("harmless=1").env_clear().output().unwrap();
    let (attempts, facts) = outcomes(&String::from_utf8(output.stdout).unwrap());
    assert!(attempts.len() > 15, "{attempts:?}");
    for (name, outcome) in attempts {
        // The descriptors are not inherited here.
        if !name.contains("base") && name != "can-write-overlay" {
            assert_eq!(outcome, "ok", "{name}");
        }
    }
    assert_eq!(facts["seccomp"], "0");
}

/// Files that are filled for it are not among them.
#[test]
fn a_program_has_only_the_descriptors_that_it_was_given() {
    also_as_nobody("a_program_has_only_the_descriptors_that_it_was_given");
    let targets = Targets::new();
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(8192).unwrap();
    let (from, into) = (targets.template.as_raw_fd(), memory.as_raw_fd());
    let inherited = rustix::io::dup(&targets.lock).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let spec = JailSpec {
        arguments: vec!["facts=1".into()],
        openings: Vec::new(),
        fillings: vec![Filling { from, into, length: 4096 }],
        ..targets.spec()
    };
    let (text, _) = lines(launch(&spec).unwrap());
    let (_, facts) = outcomes(&text);
    let mut expected = [0, 1, 2, targets.overlay.as_raw_fd(), targets.base.as_raw_fd()];
    expected.sort_unstable();
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(facts["descriptors"], expected.join(" "));
    let mut filled = [0; 8192];
    memory.read_exact_at(&mut filled, 0).unwrap();
    assert!(filled[..4096] == [b'o'; 4096] && filled[4096..] == [0; 4096]);
}

#[test]
fn a_hole_is_feigned_in_no_other_file() {
    also_as_nobody("a_hole_is_feigned_in_no_other_file");
    let targets = Targets::new();
    let mut spec = targets.spec();
    spec.openings[0].feigns_holes = false;
    let (attempts, _) = outcomes(&lines(launch(&spec).unwrap()).0);
    assert_ne!(attempts["can-feign-a-hole-in-template"], "ok");
    let again = spec.openings[0].clone();
    spec.openings.push(again);
    spec.openings.iter_mut().for_each(|opening| opening.feigns_holes = true);
    let error = launch(&spec).unwrap_err().to_string();
    assert!(error.contains("only one"), "{error}");
}

#[test]
fn the_jailer_ends_as_its_program_ended() {
    also_as_nobody("the_jailer_ends_as_its_program_ended");
    let ended = |argument: &str| {
        let spec = JailSpec { arguments: vec![argument.into()], ..plain_spec(&probe()) };
        launch(&spec).unwrap().jailer.wait().unwrap()
    };
    assert_eq!(ended("exit=7").code(), Some(7));
    assert_eq!(ended("die=6").signal(), Some(6));
    assert_eq!(ended("die=9").signal(), Some(9));
}

/// Mutation tried: with the ambient set left empty, the port could not be bound.
#[test]
fn root_publishes_low_ports_by_the_one_capability_for_it() {
    if !is_root() {
        return;
    }
    let port = (900..1000).find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap();
    let bind = |low_ports| {
        let arguments = vec![format!("bind=127.0.0.1:{port}").into()];
        let network = NetworkScope::Host;
        let spec = JailSpec { arguments, network, low_ports, ..plain_spec(&probe()) };
        outcomes(&lines(launch(&spec).unwrap()).0)
    };
    let (attempts, facts) = bind(true);
    assert_eq!(attempts["bind"], "ok");
    let only = 1 << 10;
    assert_eq!(facts["capabilities"], format!("[{only}, {only}, {only}, 0, 0, 0]"));
    let (attempts, facts) = bind(false);
    assert_ne!(attempts["bind"], "ok");
    assert_eq!(facts["capabilities"], "[0, 0, 0, 0, 0, 0]");
}

/// Whichever of the three is killed, the lock becomes free exactly when the program has ended.
///
/// Mutations tried: with a stage that does not hold the guard, killing init left the lock free while the program ran; with
/// an init that does not notice the stage's end, the lock stayed.
#[test]
fn the_lock_is_free_only_after_the_program_has_ended() {
    also_as_nobody("the_lock_is_free_only_after_the_program_has_ended");
    for victim in ["program", "stage", "init", "stop the stage first"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.lock");
        let lock = File::create(&path).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let spec = JailSpec {
            arguments: vec!["sleep=1".into()],
            guard: Some(lock.as_raw_fd()),
            ..plain_spec(&probe())
        };
        let mut jailed = launch(&spec).unwrap();
        drop(lock);
        let other = File::open(&path).unwrap();
        let is_free =
            || rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!is_free(), "{victim}");
        let (stage, program) = (jailed.jailer.id(), jailed.pid);
        let init = child_of(stage, program);
        match victim {
            "program" => kill(program, libc::SIGKILL),
            "stage" => kill(stage, libc::SIGKILL),
            "init" => kill(init, libc::SIGKILL),
            _ => {
                kill(stage, libc::SIGSTOP);
                kill(init, libc::SIGKILL);
                std::thread::sleep(Duration::from_millis(50));
                // The program has ended, but the stage could not say so yet.
                assert!(!is_free());
                kill(stage, libc::SIGCONT);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_free() {
            assert!(Instant::now() < deadline, "{victim}: the lock stays");
            std::hint::spin_loop();
        }
        let ended = has_ended(&jailed.handle);
        assert!(ended, "{victim}: the lock was free while the program ran");
        jailed.jailer.wait().unwrap();
    }
}

/// When whoever started the jail is killed, everything in it ends.
#[test]
fn a_jail_ends_with_its_starter() {
    also_as_nobody("a_jail_ends_with_its_starter");
    let test = std::env::current_exe().unwrap();
    let mut starter = std::process::Command::new(test)
        .args(["--exact", "is_a_starter", "--nocapture", "--ignored"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = std::io::BufReader::new(starter.stdout.take().unwrap());
    let pids: Vec<u32> = loop {
        text.clear();
        std::io::BufRead::read_line(&mut stdout, &mut text).unwrap();
        if let Some(pids) = text.split_once("started ").map(|(_, pids)| pids) {
            break pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        }
        assert!(!text.is_empty(), "the starter ended");
    };
    let handles: Vec<OwnedFd> = pids.iter().map(|&pid| handle(pid)).collect();
    starter.kill().unwrap();
    starter.wait().unwrap();
    for handle in handles {
        assert!(wait(&handle, Duration::from_secs(10)), "something of the jail goes on");
    }
}

/// Not a test: the starter of the test above.
#[test]
#[ignore = "it is the process that another test kills"]
fn is_a_starter() {
    let spec = JailSpec { arguments: vec!["sleep=1".into()], ..plain_spec(&probe()) };
    let jailed = launch(&spec).unwrap();
    println!("started {} {}", jailed.jailer.id(), jailed.pid);
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_jail_that_cannot_be_built_is_an_error_that_says_what() {
    also_as_nobody("a_jail_that_cannot_be_built_is_an_error_that_says_what");
    let fails = |spec: &JailSpec| launch(spec).unwrap_err().to_string();
    let mut missing = plain_spec(&probe());
    missing.view.code.push("/nonexistent/library.so".into());
    let error = fails(&missing);
    assert!(error.contains("giving the jail /nonexistent/library.so failed"), "{error}");

    let mut absent = plain_spec(&probe());
    absent.program = "/bin/absent".into();
    let error = fails(&absent);
    assert!(error.contains("opening /bin/absent in the jail failed"), "{error}");

    let mut unreadable = plain_spec(&probe());
    unreadable.view.code.retain(|path| !path.to_string_lossy().contains("ld-linux"));
    let error = fails(&unreadable);
    assert!(error.contains("executing"), "{error}");

    let other = if is_root() { JailIdentity::Own } else { JailIdentity::Reserved(support::RESERVED) };
    let error = fails(&JailSpec { identity: other, ..plain_spec(&probe()) });
    assert!(error.contains("user"), "{error}");

    let lock = tempfile::tempfile().unwrap();
    let number = lock.as_raw_fd();
    let guarded = JailSpec { descriptors: vec![number], guard: Some(number), ..plain_spec(&probe()) };
    let error = fails(&guarded);
    assert!(error.contains("guards it"), "{error}");
}

/// Mutation tried: with a program that does not join the group, this failed.
#[test]
fn a_box_of_root_has_a_control_group_that_goes_with_it() {
    let name = format!("test-{}", std::process::id());
    let cgroup = Some(CgroupSpec::of_box(&name, 64 << 20, 4));
    let spec = JailSpec { arguments: vec!["sleep=1".into()], cgroup, ..plain_spec(&probe()) };
    let mut jailed = launch(&spec).unwrap();
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", jailed.pid)).unwrap();
    let in_force: Vec<_> = ["memory limit", "task limit", "processor limit"]
        .into_iter()
        .filter(|name| matches!(jailed.report.state(name), Some(MeasureState::InForce(_))))
        .collect();
    assert_eq!(text.contains(&name), !in_force.is_empty(), "{text}\n{:?}", jailed.report);
    for place in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        let group = Path::new(place).join("boxlite").join(&name);
        if let Ok(limit) = std::fs::read_to_string(group.join("pids.max")) {
            assert_eq!(limit.trim(), "100");
            let inside = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
            assert_eq!(inside.lines().count(), 2, "the program and the jail's init: {inside}");
        }
        if let Ok(limit) = std::fs::read_to_string(group.join("memory.limit_in_bytes")) {
            assert_eq!(limit.trim(), ((64 + 2 + 256_u64) << 20).to_string());
        }
        for (file, expected) in [("cpu.shares", "4096"), ("cpu.weight", "400")] {
            if let Ok(weight) = std::fs::read_to_string(group.join(file)) {
                assert_eq!(weight.trim(), expected, "{file}");
            }
        }
    }
    kill(jailed.pid, libc::SIGKILL);
    jailed.jailer.wait().unwrap();
    for place in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        assert!(!Path::new(place).join("boxlite").join(&name).exists(), "{place}");
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    also_as_nobody("an_ordinary_user_is_told_what_is_missing");
    let cgroup = Some(CgroupSpec::of_box("test", 64 << 20, 1));
    let network = NetworkScope::Host;
    let spec = JailSpec { arguments: vec!["facts=1".into()], cgroup, network, ..plain_spec(&probe()) };
    let jailed = launch(&spec).unwrap();
    let missing: Vec<&str> = jailed.report.missing().map(|measure| measure.name.as_str()).collect();
    assert!(missing.contains(&"network"), "{:?}", jailed.report);
    if !is_root() {
        assert!(missing.contains(&"user") && missing.contains(&"memory limit"), "{:?}", jailed.report);
    }
    lines(jailed);
}

/// What the jail adds to the start of a program: the median of 20.
#[test]
fn a_jail_costs_little() {
    also_as_nobody("a_jail_costs_little");
    let program = Path::new("/bin/true");
    let median = |mut run: Box<dyn FnMut()>| {
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let outside = median(Box::new(|| {
        std::process::Command::new(program).status().unwrap();
    }));
    let spec = plain_spec(program);
    let inside = median(Box::new(move || {
        assert!(launch(&spec).unwrap().jailer.wait().unwrap().success());
    }));
    let cgroup = Some(CgroupSpec::of_box(&format!("cost-{}", std::process::id()), 64 << 20, 1));
    let spec = JailSpec { cgroup, ..plain_spec(program) };
    let grouped = median(Box::new(move || {
        assert!(launch(&spec).unwrap().jailer.wait().unwrap().success());
    }));
    println!(
        "as {}: outside {outside:?}, inside {inside:?}, with a control group {grouped:?}",
        rustix::process::getuid().as_raw()
    );
    // Goal: 15 ms. A busy machine is given more.
    assert!(inside < outside + Duration::from_millis(100), "{inside:?} against {outside:?}");
}

fn kill(pid: u32, signal: i32) {
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

fn handle(pid: u32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

fn has_ended(handle: &OwnedFd) -> bool {
    wait(handle, Duration::ZERO)
}

/// The child of `parent` that is not `other`.
fn child_of(parent: u32, other: u32) -> u32 {
    let mut text = String::new();
    let path = format!("/proc/{parent}/task/{parent}/children");
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).find(|&pid| pid != other).unwrap()
}

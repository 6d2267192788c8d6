//! A virtual machine with the agent in it, and a client that talks to the agent like a shim.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use boxlite_proto::{
    BootConfig, Decoder, ExecSpec, Frame, FromGuest, Op, OpEvent, ProcessExit, SendWindow, Stream, ToGuest,
};
use boxlite_testkit::assets::{self, Assets};
use boxlite_testkit::deadline;
use boxlite_vm::guest::{BootFiles, BootSources, GuestDevices, boot_files};

/// Software emulation on a loaded machine is slow, and no test measures how slow.
pub(crate) const GUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns what this machine lacks to run the tests, if anything.
pub(crate) fn missing() -> Option<String> {
    let (kernel, busybox) = (Assets::locate().kernel(), Path::new("/usr/bin/busybox"));
    if let Some(reason) = assets::missing(&[&kernel.join("vmlinuz"), &kernel.join("modules"), busybox]) {
        return Some(reason);
    }
    ["qemu-system-x86_64", "mke2fs", "e2fsck", "setpriv"].into_iter().find_map(|program| {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
        (!found).then(|| format!("{program} is missing; run scripts/setup --test"))
    })
}

/// The agent, linked statically as it is shipped.
fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let target = "x86_64-unknown-linux-gnu";
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--release",
                "-p",
                "boxlite-guest",
                "--target",
                target,
                "--target-dir",
            ])
            .arg(target_dir)
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static -C relocation-model=static",
            )
            .envs([("CARGO_PROFILE_RELEASE_LTO", "fat"), ("CARGO_PROFILE_RELEASE_PANIC", "abort")])
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .expect("running cargo");
        assert!(status.success(), "the agent does not build");
        target_dir.join(target).join("release/boxlite-guest")
    })
}

fn files(devices: GuestDevices) -> BootFiles {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-boot");
    std::fs::create_dir_all(&cache).unwrap();
    let sources = BootSources { kernel_dir: Assets::locate().kernel(), agent: agent().to_owned() };
    boot_files(&sources, devices, &cache, &cache).expect("making the boot files")
}

/// Makes a root filesystem of `megabytes` from what `fill` puts into a directory, besides busybox and a few users.
pub(crate) fn root_image(path: &Path, megabytes: u32, fill: impl FnOnce(&Path)) {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    for directory in ["bin", "etc", "home/web", "proc"] {
        std::fs::create_dir_all(at(directory)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", at("bin/busybox")).unwrap();
    let applets = Command::new("/usr/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", at("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/home/web:/bin/sh\n";
    std::fs::write(at("etc/passwd"), passwd).unwrap();
    std::fs::write(at("etc/group"), "root:x:0:\nweb:x:33:\nvideo:x:44:web\naudio:x:45:web\n").unwrap();
    fill(tree.path());
    let status = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"])
        .arg(tree.path())
        .arg(path)
        .arg(format!("{megabytes}M"))
        .status()
        .unwrap();
    assert!(status.success());
}

/// Checks an image with `e2fsck -fn`; the error is its output.
pub(crate) fn check(image: &Path) -> Result<(), String> {
    let output = Command::new("e2fsck").arg("-fn").arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// One arrival on a channel.
#[derive(Debug)]
pub(crate) enum Arrival {
    Event(OpEvent),
    Data(Stream, Vec<u8>),
    Eof(Stream),
}

#[derive(Default)]
struct Routes {
    channels: HashMap<u32, Sender<Arrival>>,
    windows: HashMap<u32, SendWindow>,
    closed: Vec<u32>,
    /// Channels whose credit is not granted automatically.
    withheld: Vec<u32>,
}

struct Shared {
    routes: Mutex<Routes>,
    changed: Condvar,
    writer: Mutex<UnixStream>,
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap()
    }

    fn send(&self, frame: &Frame) {
        self.writer.lock().unwrap().write_all(&frame.to_bytes()).expect("sending to the guest");
    }
}

pub(crate) struct Machine {
    qemu: Child,
    shared: Arc<Shared>,
    main: Mutex<Receiver<FromGuest>>,
    next_id: AtomicU32,
    /// The abilities of the agent's hello.
    pub(crate) features: Vec<String>,
    pub(crate) ready: FromGuest,
    pub(crate) boot_time: Duration,
    _scratch: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

pub(crate) fn config() -> BootConfig {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    BootConfig {
        hostname: "testbox".into(),
        dns_servers: vec!["10.0.2.3".into()],
        dns_search: vec!["example.test".into()],
        clock_unix_nanos: now.as_nanos() as u64,
        grow_root: true,
        ..BootConfig::default()
    }
}

impl Machine {
    /// Boots from `image`, a raw file, and waits until the guest is up or has failed to come up.
    pub(crate) fn boot(image: &Path, config: BootConfig, extra: &[&str]) -> Self {
        Self::boot_by_kernel(image, config, "", extra)
    }

    /// As [`Self::boot`], with further arguments of the kernel.
    pub(crate) fn boot_by_kernel(image: &Path, config: BootConfig, kernel: &str, extra: &[&str]) -> Self {
        let devices =
            GuestDevices { network: config.network.is_some(), shares: !config.mounts.is_empty(), pci: false };
        let files = files(devices);
        let scratch = tempfile::tempdir().unwrap();
        let socket = scratch.path().join("agent.sock");
        let started = Instant::now();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(qemu_arguments(&files, image, &socket, kernel));
        command.args(extra).stdin(Stdio::null());
        let qemu = spawn_until_exit(command);
        let stream = connect(&socket);
        let (to_main, main) = channel();
        let shared = Arc::new(Shared {
            routes: Mutex::default(),
            changed: Condvar::new(),
            writer: Mutex::new(stream.try_clone().unwrap()),
        });
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || read(stream, &reader, &to_main));

        let hello = main.recv_timeout(GUEST_TIMEOUT).expect("the agent says hello");
        let features = match hello {
            FromGuest::Hello { version: boxlite_proto::PROTOCOL_VERSION, features } => features,
            other => panic!("{other:?}"),
        };
        shared.send(&Frame::control(&ToGuest::Boot(Box::new(config))).unwrap());
        let ready = main.recv_timeout(GUEST_TIMEOUT).expect("the guest comes up");
        let boot_time = started.elapsed();
        let main = Mutex::new(main);
        Self { qemu, shared, main, next_id: AtomicU32::new(1), features, ready, boot_time, _scratch: scratch }
    }

    pub(crate) fn send(&self, message: &ToGuest) {
        self.shared.send(&Frame::control(message).unwrap());
    }

    fn open(&self) -> (u32, Receiver<Arrival>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        let mut routes = self.shared.routes();
        routes.channels.insert(id, sender);
        routes.windows.insert(id, SendWindow::new(id, Stream::Stdin));
        (id, receiver)
    }

    /// Starts an operation and returns a handle to its arrivals.
    pub(crate) fn start(&self, op: Op) -> Running<'_> {
        let (id, arrivals) = self.open();
        self.send(&ToGuest::Op(op.with_id(id)));
        Running { machine: self, id, arrivals: Mutex::new(arrivals) }
    }

    pub(crate) fn exec(&self, spec: ExecSpec) -> Running<'_> {
        self.start(Op::Exec { id: 0, spec })
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, argv: &[&str]) -> Ended {
        self.exec(spec(argv)).wait()
    }

    /// Runs a shell command to its end and expects success.
    pub(crate) fn sh(&self, script: &str) -> String {
        let ended = self.run(&["sh", "-c", script]);
        assert_eq!(ended.outcome, Ok(ProcessExit::Code(0)), "{script}: {ended:?}");
        ended.out()
    }

    /// Starts an operation and returns its only event.
    pub(crate) fn ask(&self, op: Op) -> OpEvent {
        let running = self.start(op);
        match running.next() {
            Arrival::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Shuts the guest down, then ends QEMU.
    pub(crate) fn shut_down(mut self, grace: Duration) {
        self.send(&ToGuest::Shutdown { grace_ms: grace.as_millis() as u64 });
        let down = self.main.lock().unwrap().recv_timeout(GUEST_TIMEOUT);
        assert_eq!(down, Ok(FromGuest::Down));
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }

    /// Shuts the guest down and waits until it has powered itself off. Returns whether QEMU reports success.
    pub(crate) fn power_off(mut self) -> bool {
        self.send(&ToGuest::Shutdown { grace_ms: 0 });
        self.qemu.wait().unwrap().success()
    }
}

/// Starts a child that dies with this process. The kernel counts the parent's thread as the parent, and a test's thread
/// ends before the tests do, so a thread of its own stays for it.
fn spawn_until_exit(mut command: Command) -> Child {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        sender.send(command.spawn().expect("starting QEMU")).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap()
}

fn qemu_arguments(files: &BootFiles, image: &Path, socket: &Path, kernel: &str) -> Vec<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let mhz: f64 = cpu
        .lines()
        .find(|line| line.starts_with("cpu MHz"))
        .unwrap()
        .split(": ")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let append = format!(
        "panic=-1 quiet loglevel=1 tsc_early_khz={} cryptomgr.notests init_on_alloc=0 {kernel}",
        (mhz * 1000.0) as u64
    );
    let text = "-nodefaults -no-user-config -display none -no-reboot -m 256 -smp 1 -accel tcg -cpu max \
         -M microvm,acpi=on,isa-serial=off -bios qboot.rom \
         -device virtio-serial-device,max_ports=4 -device virtserialport,chardev=agent,name=agent \
         -device virtio-blk-device,drive=d0,id=vd0";
    let mut arguments: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
    let pairs = [
        ("-kernel", files.kernel.display().to_string()),
        ("-initrd", files.initramfs.display().to_string()),
        ("-append", append),
        ("-chardev", format!("socket,id=agent,path={},server=on,wait=off", socket.display())),
        (
            "-blockdev",
            format!("driver=file,node-name=f0,filename={},aio=threads,discard=unmap", image.display()),
        ),
        ("-blockdev", "driver=raw,node-name=d0,file=f0,discard=unmap,detect-zeroes=unmap".to_owned()),
    ];
    for (name, value) in pairs {
        arguments.extend([name.to_owned(), value]);
    }
    arguments
}

fn connect(socket: &Path) -> UnixStream {
    deadline::within(GUEST_TIMEOUT, "QEMU's socket", || UnixStream::connect(socket).ok())
}

fn read(mut stream: UnixStream, shared: &Shared, main: &Sender<FromGuest>) {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        let mut input = &buffer[..n];
        while let Some(frame) = decoder.next(&mut input).expect("the guest keeps to the protocol") {
            route(frame, shared, main);
        }
    }
}

fn route(frame: Frame, shared: &Shared, main: &Sender<FromGuest>) {
    let mut routes = shared.routes();
    let pass = |routes: &Routes, channel: u32, arrival: Arrival| {
        if let Some(sender) = routes.channels.get(&channel) {
            let _ = sender.send(arrival);
        }
    };
    match frame {
        Frame::Control(json) => match Frame::parse_control::<FromGuest>(&json).unwrap() {
            FromGuest::Event(event) => pass(&routes, event.id(), Arrival::Event(event)),
            other => drop(main.send(other)),
        },
        Frame::Data { channel, stream, bytes } => {
            let credit = Frame::Credit { channel, stream, bytes: bytes.len() as u32 };
            let withheld = routes.withheld.contains(&channel);
            pass(&routes, channel, Arrival::Data(stream, bytes));
            drop(routes);
            if !withheld {
                shared.send(&credit);
            }
        }
        Frame::Eof { channel, stream } => pass(&routes, channel, Arrival::Eof(stream)),
        Frame::Credit { channel, bytes, .. } => {
            if let Some(window) = routes.windows.get_mut(&channel) {
                window.granted(bytes).expect("no more credit than the window");
            }
            shared.changed.notify_all();
        }
        Frame::Close { channel, .. } => {
            routes.closed.push(channel);
            shared.changed.notify_all();
        }
    }
}

pub(crate) fn spec(argv: &[&str]) -> ExecSpec {
    ExecSpec { argv: argv.iter().map(|&s| s.to_owned()).collect(), ..ExecSpec::default() }
}

/// The result of an exec.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Result<ProcessExit, boxlite_proto::ExecFailure>,
    pub(crate) message: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ended {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

pub(crate) struct Running<'a> {
    machine: &'a Machine,
    pub(crate) id: u32,
    arrivals: Mutex<Receiver<Arrival>>,
}

impl Running<'_> {
    pub(crate) fn next(&self) -> Arrival {
        self.arrivals.lock().unwrap().recv_timeout(GUEST_TIMEOUT).expect("an answer of the guest")
    }

    pub(crate) fn next_within(&self, limit: Duration) -> Option<Arrival> {
        self.arrivals.lock().unwrap().recv_timeout(limit).ok()
    }

    /// Waits until the program runs.
    pub(crate) fn started(self) -> Self {
        match self.next() {
            Arrival::Event(OpEvent::Started { .. }) => self,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for output that contains `text` and returns all of it up to there.
    pub(crate) fn until(&self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.next() {
                Arrival::Data(_, bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Arrival::Event(OpEvent::Started { .. }) => {}
                other => panic!("{other:?} instead of {text:?} after {seen:?}"),
            }
        }
        seen
    }

    pub(crate) fn wait(self) -> Ended {
        let mut ended = Ended {
            outcome: Ok(ProcessExit::Code(-1)),
            message: String::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        let mut open_streams = 0;
        loop {
            match self.next() {
                Arrival::Data(Stream::Stdout, mut bytes) => ended.stdout.append(&mut bytes),
                Arrival::Data(_, mut bytes) => ended.stderr.append(&mut bytes),
                Arrival::Eof(_) => open_streams += 1,
                Arrival::Event(OpEvent::Started { .. }) => {}
                Arrival::Event(OpEvent::Exited { status, .. }) => {
                    assert!(open_streams > 0, "the streams end before the exec does");
                    ended.outcome = Ok(status);
                    return ended;
                }
                Arrival::Event(OpEvent::ExecFailed { kind, message, .. }) => {
                    ended.outcome = Err(kind);
                    ended.message = message;
                    return ended;
                }
                Arrival::Event(other) => panic!("{other:?}"),
            }
        }
    }

    /// Withholds credit from now on.
    pub(crate) fn withhold(&self) {
        self.machine.shared.routes().withheld.push(self.id);
    }

    pub(crate) fn grant(&self, stream: Stream, bytes: u32) {
        self.machine.shared.send(&Frame::Credit { channel: self.id, stream, bytes });
    }

    pub(crate) fn close(&self, stream: Stream) {
        self.machine.shared.send(&Frame::Close { channel: self.id, stream });
    }

    pub(crate) fn signal(&self, signo: i32) {
        self.machine.send(&ToGuest::Op(Op::Signal { id: self.id, signo }));
    }

    /// Sends input within the guest's credit. Returns false once the guest has closed the stream.
    pub(crate) fn write(&self, mut bytes: &[u8]) -> bool {
        let shared = &self.machine.shared;
        while !bytes.is_empty() {
            let mut routes = shared.routes();
            let n = loop {
                if routes.closed.contains(&self.id) {
                    return false;
                }
                let window = routes.windows.get_mut(&self.id).unwrap();
                let n = bytes.len().min(window.available()).min(32 * 1024);
                if n > 0 {
                    window.sent(n);
                    break n;
                }
                let (guard, timeout) = shared.changed.wait_timeout(routes, GUEST_TIMEOUT).unwrap();
                assert!(!timeout.timed_out(), "the guest gives no credit");
                routes = guard;
            };
            drop(routes);
            let data = bytes[..n].to_vec();
            shared.send(&Frame::Data { channel: self.id, stream: Stream::Stdin, bytes: data });
            bytes = &bytes[n..];
        }
        true
    }

    pub(crate) fn end_input(&self) {
        self.machine.shared.send(&Frame::Eof { channel: self.id, stream: Stream::Stdin });
    }
}

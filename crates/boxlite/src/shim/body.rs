//! What a shim does from its first instruction to its last.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite_proto::{Frame, MAIN_CHANNEL, Op, ProtoError, ShimReply, ToGuest};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::driver::{Driver, Inputs};
use super::kin::Kin;
use super::launch::LaunchSpec;
use super::log::CappedFile;
use super::outcome::{End, Outcome, OutcomeSlot};
use super::plug::{self, Plug};
use super::reservation::Reservation;
use super::sink::{self, FrameSink};
use super::spawn::{Order, Report};
use super::vmm::process::{self, Vm};
use super::vmm::qmp::Qmp;
use super::{control, socket};
use crate::admission::Claim;
use crate::disk::lease::Leased;
use crate::durable;
use crate::error::{Doing, Error, Result};
use crate::home::{BoxPaths, Home};

/// How long clients get to read the last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// The end of QEMU's complaints that is kept for the outcome, in bytes.
const COMPLAINT: usize = 1024;

/// What a shim was given by its starter.
#[derive(Debug)]
pub struct Assignment {
    spec: LaunchSpec,
    status: File,
    lock: OwnedFd,
    claim: Option<Claim>,
}

impl Assignment {
    /// Takes what the starter sent; the descriptors are this process's own from here on.
    pub(super) fn receive(
        mut spec: File,
        status: OwnedFd,
        lock: OwnedFd,
        claim: Option<OwnedFd>,
    ) -> Result<Self> {
        let mut text = Vec::new();
        spec.read_to_end(&mut text).doing("reading", "the launch specification")?;
        let Order { spec, claimed } = serde_json::from_slice(&text)
            .map_err(|error| Error::bug("the launch specification cannot be understood").because(error))?;
        let claim = match (claim, claimed) {
            (Some(descriptor), Some(range)) => Some(Claim::adopt(&home_of(&spec)?, descriptor, range)?),
            _ => None,
        };
        Ok(Self { spec, status: File::from(status), lock, claim })
    }

    /// Where this shim's own words go: `boxes/<id>/shim.log`, bounded.
    pub fn log(&self) -> Result<impl Write + Send + 'static> {
        let path = self.spec.box_dir.join("shim.log");
        Ok(LogFile(CappedFile::start(&path, 256 * 1024, true)?))
    }

    /// Runs the box to its end; call it on the process's main thread, which QEMU's life hangs on.
    ///
    /// The starter has been told of a failure when this returns one.
    pub fn run(mut self) -> Result<()> {
        let result = self.start().and_then(|(runtime, body)| {
            self.report(&Report::Ready { shim_pid: std::process::id(), vm_pid: body.vm.child.id() });
            runtime.block_on(body.run())
        });
        if let Err(error) = &result {
            self.report(&Report::Failed { kind: error.kind(), message: error.to_string() });
        }
        result
    }

    fn start(&mut self) -> Result<(tokio::runtime::Runtime, Body)> {
        // A crash of QEMU must not write the guest's memory to the host's disk.
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::Core, none).doing("limiting", "core dumps")?;
        let lock = self.lock.try_clone().doing("keeping the lock of", &self.spec.box_dir)?;
        let kin = Kin::new(lock);
        let boot_files = lease_boot_files(&self.spec)?;
        let mut plugs = plug::plugs(&self.spec, &kin)?;
        let vm = process::start(&self.spec, &kin, &mut plugs)?;
        let paths = BoxPaths::new(self.spec.box_dir.clone());
        let listener = socket::listen(&paths.socket())?;
        let slot = OutcomeSlot::reserve(&paths.outcome())?;
        let reservation = Reservation::new(self.claim.take(), &self.spec.overlay);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("starting the runtime for", &self.spec.box_dir)?;
        let body = Body {
            spec: self.spec.clone(),
            paths,
            vm,
            plugs,
            listener,
            slot: Arc::new(slot),
            reservation,
            _boot_files: boot_files,
            _kin: kin,
        };
        Ok((runtime, body))
    }

    /// Tells the starter once; a starter that has gone does not matter.
    fn report(&mut self, report: &Report) {
        if let Ok(text) = serde_json::to_vec(report) {
            let _ = self.status.write_all(&text);
        }
        // Further reports, and the pipe's end, go nowhere.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            self.status = null;
        }
    }
}

/// The home that the box lies in, as `boxes/<id>`.
fn home_of(spec: &LaunchSpec) -> Result<Home> {
    let root = spec.box_dir.ancestors().nth(2);
    Home::open(root.ok_or_else(|| Error::bug(format!("{} lies in no home", spec.box_dir.display())))?)
}

/// QEMU maps its kernel and initramfs for as long as it lives, so their removal would free nothing before.
fn lease_boot_files(spec: &LaunchSpec) -> Result<Vec<Leased>> {
    let lease = |path: &std::path::PathBuf| {
        let gone = || Error::not_found(format!("the boot file {} has vanished", path.display())).at(path);
        Leased::acquire(path)?.ok_or_else(gone)
    };
    [&spec.kernel, &spec.initrd].into_iter().map(lease).collect()
}

struct LogFile(CappedFile);

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Body {
    spec: LaunchSpec,
    paths: BoxPaths,
    vm: Vm,
    plugs: Vec<Plug>,
    listener: std::os::unix::net::UnixListener,
    slot: Arc<OutcomeSlot>,
    reservation: Reservation,
    _boot_files: Vec<Leased>,
    _kin: Kin,
}

impl Body {
    async fn run(self) -> Result<()> {
        let (guest, to_guest) = sink::queue();
        let unsendable = |error: ProtoError| {
            Error::invalid(format!("the box's configuration cannot be sent to its guest: {error}"))
                .because(error)
        };
        // All of it waits in the channel for the agent, which takes one after the other once it is ready for it.
        guest.send(boot_message(&self.spec).map_err(unsendable)?);
        if let Some(main) = &self.spec.main {
            let exec = Op::Exec { id: MAIN_CHANNEL, spec: main.clone() };
            guest.control(&ToGuest::Op(exec)).map_err(unsendable)?;
        }
        let doing = "attaching to QEMU of";
        let dir = self.spec.box_dir.clone();
        let (agent_read, agent_write) = tokio(self.vm.agent).doing(doing, &dir)?.into_split();
        tokio::spawn(to_guest.drain_into(agent_write));
        let (guest_sender, guest_inputs) = mpsc::channel(64);
        tokio::spawn(control::read_agent(agent_read, guest_sender));
        let (qmp, qmp_events) =
            Qmp::start(tokio(self.vm.qmp).doing(doing, &dir)?).await.doing(doing, &dir)?;
        let console = CappedFile::start(&self.paths.console_log(), self.spec.logs.console, true)?;
        tokio::spawn(keep_console(tokio(self.vm.console).doing(doing, &dir)?, console));
        let complaint = Arc::new(Mutex::new(String::new()));
        let stderr =
            tokio::net::unix::pipe::Receiver::from_owned_fd(self.vm.stderr.into()).doing(doing, &dir)?;
        let complaining = tokio::spawn(keep_complaints(stderr, Arc::clone(&complaint)));
        let vm_pid = self.vm.child.id();
        let vm_handle = pidfd(vm_pid).doing(doing, &dir)?;
        let handle_to_kill = vm_handle.try_clone().doing(doing, &dir)?;
        let (ended, vm_end) = oneshot::channel();
        tokio::spawn(watch(self.vm.child, vm_handle, ended));
        let parts: Vec<_> = self.plugs.into_iter().filter_map(|plug| plug.task).map(run_part).collect();
        let listener = tokio::net::UnixListener::from_std(self.listener).doing(doing, &dir)?;
        let (client_sender, clients) = mpsc::channel(64);
        let connections = TaskTracker::new();
        let serving = tokio::spawn(control::serve(listener, connections.clone(), client_sender));
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .doing("listening for signals in the shim of", &dir)?;
        let slot = Arc::clone(&self.slot);
        let reserving = tokio::task::spawn_blocking(move || slot.sync());

        let inputs = Inputs { guest: guest_inputs, clients, qmp: qmp_events, vm_end, terminate };
        let driver = Driver::new(self.spec, vm_pid, handle_to_kill, guest, qmp, self.reservation)?;
        let (mut outcome, sinks) = driver.run(inputs).await;

        for part in parts {
            part.abort();
        }
        serving.abort();
        let _ = tokio::time::timeout(FAREWELL, complaining).await;
        explain(&mut outcome, &complaint.lock().unwrap_or_else(PoisonError::into_inner));
        tracing::info!(?outcome, "the box has ended");
        if let Ok(Err(error)) = reserving.await {
            tracing::warn!(%error, "the outcome's room may not be durable");
        }
        let published = self.slot.publish(&outcome);
        bid_farewell(sinks, connections, &outcome).await;
        durable::remove_volatile(&self.paths.socket())?;
        published
    }
}

fn boot_message(spec: &LaunchSpec) -> Result<Frame, ProtoError> {
    let mut boot = spec.boot.clone();
    if boot.clock_unix_nanos == 0 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        boot.clock_unix_nanos = now.map_or(0, |now| now.as_nanos() as u64);
    }
    Frame::control(&ToGuest::Boot(boot))
}

fn tokio(stream: std::os::unix::net::UnixStream) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::from_std(stream)
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Waits for QEMU without a thread or a signal handler, and reaps it.
async fn watch(
    mut child: std::process::Child,
    handle: OwnedFd,
    ended: oneshot::Sender<io::Result<ExitStatus>>,
) {
    // SAFETY: the registration owns the descriptor, which nothing else closes.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register(handle) };
    let readable = async { registered?.readable().await.map(|_| ()) };
    let status = match readable.await {
        Ok(()) => child.wait(),
        Err(error) => Err(error),
    };
    let _ = ended.send(status);
}

fn run_part(task: futures::future::BoxFuture<'static, Result<()>>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            tracing::error!(%error, "a part of the box failed");
        }
    })
}

async fn keep_console(mut console: tokio::net::UnixStream, mut log: CappedFile) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = console.read(&mut buffer).await {
        log.append(&buffer[..length]);
    }
}

async fn keep_complaints(stderr: tokio::net::unix::pipe::Receiver, kept: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr.take(1 << 20)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // QEMU marks what it goes on from, such as a hub on which slirp has the shim's filter for a neighbour.
        if line.contains(": warning: ") {
            tracing::debug!(line, "QEMU warns");
            continue;
        }
        tracing::warn!(line, "QEMU complains");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + line.len() < COMPLAINT {
            if !kept.is_empty() {
                kept.push_str("; ");
            }
            kept.push_str(line.trim());
        }
    }
}

/// Adds QEMU's complaints to the reason of an end that nobody wanted.
fn explain(outcome: &mut Outcome, complaint: &str) {
    if let End::VmCrashed { reason } | End::BootFailed { reason } = &mut outcome.end
        && !complaint.is_empty()
    {
        reason.push_str("; QEMU said: ");
        reason.push_str(complaint);
    }
}

async fn bid_farewell(sinks: Vec<FrameSink>, connections: TaskTracker, outcome: &Outcome) {
    for sink in &sinks {
        let _ = sink.control(&ShimReply::Stopped { status: outcome.main });
    }
    // A connection ends when its queue has been written and nobody can add to it.
    drop(sinks);
    connections.close();
    let _ = tokio::time::timeout(FAREWELL, connections.wait()).await;
}

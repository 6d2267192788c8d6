//! A box from its running QEMU to the shim's last instruction.
//!
//! # Tasks
//! The shim is one thread with one task for each channel; only the driver holds state.
//!
//! ```text
//! clients ──▶ control ──▶ ┌────────┐ ──▶ gate ──▶ agent port ──▶ guest
//! agent port ───────────▶ │ driver │ ──▶ QMP
//! QMP events ───────────▶ └────────┘
//! QEMU's exit ────────────────┘           console, standard error, devices: tasks of their own
//! ```
//!
//! # Crash safety
//! The room for the outcome is taken before the box runs, so a full disk cannot swallow it. A shim that is killed
//! publishes none, and the kernel kills its children; see [`super`] and [`super::steward`].

use std::io;
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite_proto::{BootConfig, Frame, MAIN_CHANNEL, Op, ProtoError, ShimReply, ToGuest};
use boxlite_types::{Doing, Error, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::backend::DeviceBackend;
use super::child::ChildSpawner;
use super::control;
use super::driver::{Driver, Gate, HostDisk, Inputs, Keeping};
use super::launch::{GuestOrigin, LaunchSpec};
use super::log::CappedFile;
use super::machine::Machine;
use super::outcome::{Outcome, OutcomeCause, OutcomeSlot};
use super::sink::{self, FrameSink, FrameSource};
use super::socket::Owner;
use super::steward::StewardLink;
use super::tie::{StarterWatch, Tied};
use super::vmm::program::QemuProcess;
use crate::exit::exit_of;

/// How long the last words of QEMU, and those for clients, may take once the box has ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How much later than what serves its devices QEMU may end, to count as the one that ended first.
const VM_END_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of QEMU's standard error that are kept for the outcome's reason.
const MAX_COMPLAINTS: usize = 1024;

/// Inputs that may wait for the driver, from the guest and from clients each.
const MAX_WAITING_INPUTS: usize = 64;

/// Everything that a box in its shim consists of.
pub(super) struct RunningBox {
    pub(super) spec: LaunchSpec,
    pub(super) machine: Machine,
    pub(super) listener: std::os::unix::net::UnixListener,
    /// The user who may connect to it.
    pub(super) owner: Owner,
    pub(super) terminate: tokio::signal::unix::Signal,
    /// Ends when the box's starter has, if the box is tied to it.
    pub(super) tied: Option<Tied>,
    pub(super) slot: OutcomeSlot,
    pub(super) disk: HostDisk,
    pub(super) console: CappedFile,
    pub(super) steward: Arc<StewardLink>,
    /// Its end would release the lock that says that the box runs.
    pub(super) _spawner: ChildSpawner,
}

impl RunningBox {
    /// Runs the box to its end and publishes the outcome.
    pub(super) async fn run(self) -> Result<()> {
        let Self { spec, machine, listener, owner, terminate, tied, slot, disk, console, steward, _spawner } =
            self;
        let Machine { vm, backends, qmp, qmp_events, shares, .. } = machine;
        let doing = "attaching to QEMU of";
        let dir = spec.box_dir.clone();

        let (guest, for_guest) = sink::queue();
        queue_main_process(&guest, &spec)?;
        let is_restored = matches!(spec.origin, GuestOrigin::Template(_));
        let start = spec.guest_start();
        tracing::info!(restored = start.restored, reason = start.reason, "the guest comes up");
        let (keeping, gate) = match &spec.origin {
            GuestOrigin::Template(_) => Keeping::not_any_more(),
            GuestOrigin::BootAndKeep(_) => Keeping::wanted(Arc::clone(&steward), shares),
            GuestOrigin::Boot => Keeping::unwanted(),
        };
        let (agent_reader, agent_writer) = asynchronous(vm.agent).doing(doing, &dir)?.into_split();
        tokio::spawn(write_to_agent(agent_writer, gate, spec.boot.clone(), for_guest));
        let (guest_sender, guest_inputs) = mpsc::channel(MAX_WAITING_INPUTS);
        tokio::spawn(control::read_agent(agent_reader, guest_sender));

        tokio::spawn(keep_console(asynchronous(vm.console).doing(doing, &dir)?, console));
        let QemuProcess { child, ender, pid: vm_pid, stderr } = vm.process;
        let complaints = Complaints::collect(stderr).doing(doing, &dir)?;
        let vm_end = watch(child).doing(doing, &dir)?;
        let network = backends.iter().find_map(|backend| backend.counts.clone());
        let (failed, devices_lost) = mpsc::channel(1);
        let devices: Vec<_> =
            backends.into_iter().filter_map(|backend| run_device(backend, &failed, &complaints)).collect();

        let listener = tokio::net::UnixListener::from_std(listener).doing(doing, &dir)?;
        let (client_sender, clients) = mpsc::channel(MAX_WAITING_INPUTS);
        let connections = TaskTracker::new();
        let server = tokio::spawn(control::serve(listener, owner, connections.clone(), client_sender));

        let starter = StarterWatch::new(tied).doing(doing, &dir)?;
        let inputs = Inputs {
            guest: guest_inputs,
            clients,
            qmp: qmp_events,
            vm_end,
            terminate,
            starter,
            devices_lost,
        };
        let driver = Driver::new(spec, vm_pid, ender, guest, qmp, disk, keeping).with_network(network);
        let (mut outcome, clients) = driver.run(inputs).await;

        steward.end_devices();
        for device in devices {
            device.abort();
            // Its program is gone then.
            let _ = device.await;
        }
        server.abort();
        complaints.finish().await.explain(&mut outcome);
        tracing::info!(?outcome, "the box has ended");
        if is_restored && matches!(outcome.end, OutcomeCause::BootFailed { .. }) {
            steward.discard_template();
        }
        let published = slot.publish(&outcome);
        tell_clients(clients, connections, &outcome).await;
        published
    }
}

/// Queues what the agent needs besides `Boot`; it takes one message after the other once it is ready.
///
/// # Errors
/// `InvalidInput` when the configuration does not fit a frame. `Boot` is tried here, before the box counts as running,
/// although it is sent later and then with the time.
fn queue_main_process(guest: &FrameSink, spec: &LaunchSpec) -> Result<()> {
    let unsendable = |error: ProtoError| {
        Error::invalid("the box's configuration cannot be sent to its guest").because(error)
    };
    boot_message(&spec.boot).map_err(unsendable)?;
    if let Some(main) = &spec.main {
        let exec = Op::Exec { id: MAIN_CHANNEL, spec: main.clone() };
        guest.control(&ToGuest::Op(exec)).map_err(unsendable)?;
    }
    Ok(())
}

/// Sends `Boot` as soon as the gate opens, with the time of that moment, and then everything queued for the guest.
async fn write_to_agent(
    mut agent: OwnedWriteHalf,
    gate: Gate,
    boot: BootConfig,
    queued: FrameSource,
) -> io::Result<()> {
    gate.opened().await;
    let boot = boot_message(&boot).map_err(io::Error::other)?;
    agent.write_all(&boot.to_bytes()).await?;
    queued.drain_into(agent).await
}

fn boot_message(boot: &BootConfig) -> Result<Frame, ProtoError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Frame::control(&ToGuest::Boot(Box::new(BootConfig {
        clock_unix_nanos: now.map_or(0, |now| now.as_nanos() as u64),
        entropy: rand::random::<[u8; 32]>().to_vec(),
        ..boot.clone()
    })))
}

fn asynchronous(stream: std::os::unix::net::UnixStream) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::from_std(stream)
}

async fn keep_console(mut console: tokio::net::UnixStream, mut log: CappedFile) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = console.read(&mut buffer).await {
        log.append(&buffer[..length]);
        log.report_trouble();
    }
}

/// QEMU's exit, once it has been reaped.
type VmEnd = oneshot::Receiver<io::Result<ExitStatus>>;

/// Watches QEMU, or the jailer that ends with it.
fn watch(mut child: Child) -> io::Result<VmEnd> {
    let exit = exit_of(&mut child)?;
    let (ended, vm_end) = oneshot::channel();
    tokio::spawn(async move {
        let _ = ended.send(exit.await.and_then(|()| child.wait()));
    });
    Ok(vm_end)
}

/// Starts the host's side of a device, if it has one. Its end costs the box this device alone, unless it is vital: then `lost` is
/// told why.
fn run_device(
    backend: DeviceBackend,
    lost: &mpsc::Sender<String>,
    complaints: &Complaints,
) -> Option<JoinHandle<()>> {
    let (task, vital, lost, text) =
        (backend.task?, backend.vital, lost.clone(), Arc::clone(&complaints.text));
    Some(tokio::spawn(async move {
        let ended = task.await;
        if let Err(error) = &ended {
            tracing::error!(error = %error.chain(), "a device of the box failed");
        }
        if let Some(name) = vital {
            let reason = ended.map_or_else(|error| error.to_string(), |()| format!("{name} has ended"));
            // What serves a device ends because QEMU has, too; the end of the box is QEMU's then.
            tokio::time::sleep(VM_END_TIMEOUT).await;
            // QEMU says no more than that it misses the device.
            *text.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let _ = lost.send(reason).await;
        }
    }))
}

/// The beginning of what QEMU writes to its standard error.
struct Complaints {
    /// `None` once they explain nothing.
    text: Arc<Mutex<Option<String>>>,
    reader: JoinHandle<()>,
}

impl Complaints {
    fn collect(stderr: ChildStderr) -> io::Result<Self> {
        let stderr = tokio::net::unix::pipe::Receiver::from_owned_fd(stderr.into())?;
        let text = Arc::new(Mutex::new(Some(String::new())));
        let reader = tokio::spawn(collect_complaints(stderr, Arc::clone(&text)));
        Ok(Self { text, reader })
    }

    /// Waits a moment for the rest after QEMU has ended.
    async fn finish(self) -> LastComplaints {
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, self.reader).await;
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).take();
        LastComplaints(text.unwrap_or_default())
    }
}

/// QEMU's complaints by the time it ended.
struct LastComplaints(String);

impl LastComplaints {
    /// Adds them to the reason of an outcome that nobody asked for.
    fn explain(&self, outcome: &mut Outcome) {
        if let OutcomeCause::VmCrashed { reason } | OutcomeCause::BootFailed { reason, .. } = &mut outcome.end
            && !self.0.is_empty()
        {
            reason.push_str("; QEMU said: ");
            reason.push_str(&self.0);
        }
    }
}

async fn collect_complaints(stderr: tokio::net::unix::pipe::Receiver, kept: Arc<Mutex<Option<String>>>) {
    let mut lines = BufReader::new(stderr.take(1 << 20)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // QEMU warns about what it survives.
        if line.contains(": warning: ") {
            tracing::debug!(line, "QEMU warns");
            continue;
        }
        tracing::warn!(line, "QEMU complains");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = &mut *kept else { continue };
        if kept.len() + line.len() < MAX_COMPLAINTS {
            if !kept.is_empty() {
                kept.push_str("; ");
            }
            kept.push_str(line.trim());
        }
    }
}

/// Tells every waiting client how the box ended, and lets them read it.
async fn tell_clients(clients: Vec<FrameSink>, connections: TaskTracker, outcome: &Outcome) {
    for client in &clients {
        let _ = client.control(&ShimReply::Stopped { status: outcome.main });
    }
    // A connection ends when its queue has been written and nothing can be added to it any more.
    drop(clients);
    connections.close();
    let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, connections.wait()).await;
}

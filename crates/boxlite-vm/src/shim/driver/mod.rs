//! The single owner of a running box: one task through which every change of its state goes.
//!
//! States follow one another: booting → running → stopping → gone. Everything else (the guest's agent, QEMU, clients,
//! the host's disk, time) only sends it inputs; it never waits for any of them.

mod clock;
mod disk;
mod executions;
mod growth;
mod guest;
mod health;
mod hold;
mod idle;
mod keeping;
mod main_process;
mod ops;
mod requests;
mod shutdown;
mod space;
mod vcpus;
mod watch;

use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use boxlite_proto::{Frame, ProtoError, ShimReply};
use boxlite_types::Result;
use clock::ClockWatch;
use disk::{ActiveDisk, DiskOutcome};
use executions::HeldExecutions;
use health::HealthWatch;
use hold::Standstill;
use idle::{BoxUse, IdleWatch};
use main_process::{ClientId, MainRun};
use ops::Ops;
use shutdown::ShutdownSequence;
use space::PausedBy;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use vcpus::Vcpus;

use super::health::HealthSlot;
use super::launch::{GuestOrigin, LaunchSpec, Purpose};
use super::log::MainLogWriter;
use super::outcome::Outcome;
use super::pause::{PauseReason, PauseSlot};
use super::sink::FrameSink;
use super::steward::StewardLink;
use super::tie::StarterWatch;
use super::vmm::process::OverlayReader;
use super::vmm::qmp::{Qmp, QmpEvent};
use crate::exit::ChildEnder;
use crate::net::Counts;

pub(super) use keeping::{Gate, Keeping};
pub(super) use watch::SpaceWatch;

/// How often free space is looked at while the guest runs.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a guest may take to come up; under TCG on a busy host several seconds are normal.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);

/// The same for one that is restored.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a maintenance boot lasts without a connected client.
const UNATTENDED_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes waiting for a client that does not read them, above which it is dropped.
const CLIENT_QUEUE_LIMIT: usize = 16 << 20;

/// A connection's message to the driver.
#[derive(Debug)]
pub(super) enum ClientInput {
    /// It is there, and this is its way back.
    Connected(FrameSink),
    /// It sent a frame.
    Frame(Frame),
    /// It is gone.
    Gone,
}

/// The input of the agent's channel.
pub(super) type GuestInput = Result<Frame, ProtoError>;

/// Everything that the driver listens to.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) guest: mpsc::Receiver<GuestInput>,
    pub(super) clients: mpsc::Receiver<(ClientId, ClientInput)>,
    pub(super) qmp: mpsc::UnboundedReceiver<QmpEvent>,
    pub(super) vm_end: oneshot::Receiver<std::io::Result<ExitStatus>>,
    /// SIGTERM to the shim asks for a stop.
    pub(super) terminate: tokio::signal::unix::Signal,
    /// The end of the starter that the box is tied to.
    pub(super) starter: StarterWatch,
    /// Why a device without which the guest hangs is not served any more.
    pub(super) devices_lost: mpsc::Receiver<String>,
}

/// The box's ties to the host's disk.
#[derive(Debug)]
pub(super) struct HostDisk {
    pub(super) log: MainLogWriter,
    /// The overlay that QEMU was started with.
    pub(super) overlay: OverlayReader,
    pub(super) watch: SpaceWatch,
    /// Where a pause is shown.
    pub(super) pause: PauseSlot,
    /// Where the box's health is shown, if it is checked.
    pub(super) health: Option<HealthSlot>,
    /// Whom it asks for what takes the home.
    pub(super) steward: Arc<StewardLink>,
}

/// The box's state.
#[derive(Debug)]
pub(super) struct Driver {
    spec: LaunchSpec,
    vm_pid: u32,
    /// Ends the process even after its number has been given to another.
    ender: ChildEnder,
    guest: FrameSink,
    qmp: Arc<Qmp>,
    phase: DriverPhase,
    boot_deadline: Instant,
    main: MainRun,
    /// Processes that the guest's kernel killed for want of memory until the main process ended.
    memory_kills: u32,
    ops: Ops,
    executions: HeldExecutions,
    clients: HashMap<ClientId, Client>,
    /// When a client was last connected.
    visited: Instant,
    vcpus: Vcpus,
    watch: SpaceWatch,
    disk: ActiveDisk,
    pause: PauseSlot,
    /// `None` where nothing checks the box's health.
    health: Option<HealthWatch>,
    steward: Arc<StewardLink>,
    /// The allocated bytes of overlay and volumes that the steward was last told of.
    claimed_at: Option<u64>,
    keeping: Keeping,
    /// The counts of the box's network.
    network: Option<Arc<Counts>>,
    clock: ClockWatch,
    /// `None` where the box may be left unused.
    idle: Option<IdleWatch>,
    /// For how long nobody had used the box when it was stopped for that.
    unused_for: Option<Duration>,
    /// Somebody, or its idleness, wanted the box to end.
    asked_to_stop: bool,
    /// QEMU's last word on why it ends.
    shutdown_reason: Option<String>,
}

fn boot_timeout(spec: &LaunchSpec) -> Duration {
    match (&spec.origin, spec.boot_timeout_ms) {
        (GuestOrigin::Template(_), _) => RESTORE_TIMEOUT,
        (_, Some(ms)) => Duration::from_millis(ms),
        (GuestOrigin::Boot | GuestOrigin::BootAndKeep(_), None) => BOOT_TIMEOUT,
    }
}

#[derive(Debug)]
enum DriverPhase {
    Booting,
    Running,
    Stopping(ShutdownSequence),
}

#[derive(Debug)]
struct Client {
    sink: FrameSink,
    greeted: bool,
    /// It waits for the box's end.
    waits: bool,
}

impl Driver {
    pub(super) fn new(
        spec: LaunchSpec,
        vm_pid: u32,
        ender: ChildEnder,
        guest: FrameSink,
        qmp: Arc<Qmp>,
        disk: HostDisk,
        keeping: Keeping,
    ) -> Self {
        let HostDisk { log, overlay, watch, pause, health, steward } = disk;
        let health = health.map(|slot| HealthWatch::new(slot, spec.health_retries));
        let vcpus = Vcpus::new(watch.floors(), spec.disk_quota, Arc::clone(&qmp));
        let now = Instant::now();
        let boot_deadline = now + boot_timeout(&spec);
        let idle = spec.idle_timeout_ms.map(|ms| IdleWatch::new(Duration::from_millis(ms), now));
        Self {
            spec,
            vm_pid,
            ender,
            guest,
            qmp,
            phase: DriverPhase::Booting,
            boot_deadline,
            main: MainRun::new(log),
            memory_kills: 0,
            ops: Ops::new(),
            executions: HeldExecutions::new(),
            clients: HashMap::new(),
            visited: Instant::now(),
            vcpus,
            watch,
            disk: ActiveDisk::new(overlay),
            pause,
            health,
            steward,
            claimed_at: None,
            keeping,
            network: None,
            clock: ClockWatch::default(),
            idle,
            unused_for: None,
            asked_to_stop: false,
            shutdown_reason: None,
        }
    }

    /// The same, telling what the box's network carries.
    pub(super) fn with_network(self, network: Option<Arc<Counts>>) -> Self {
        Self { network, ..self }
    }

    /// Runs the box until its virtual machine is gone; returns how that came, and the clients to be told.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> (Outcome, Vec<FrameSink>) {
        let mut space = interval(SPACE_INTERVAL);
        space.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut agent_open = true;
        let mut qmp_open = true;
        let steward = Arc::clone(&self.steward);
        let mut steward_gone = std::pin::pin!(steward.gone());
        let mut has_steward = true;
        let vm_end = loop {
            let deadline = self.deadline();
            tokio::select! {
                input = inputs.guest.recv(), if agent_open => match input {
                    Some(input) => self.guest_input(input),
                    None => agent_open = false,
                },
                Some((client, input)) = inputs.clients.recv() => self.client_input(client, input),
                event = inputs.qmp.recv(), if qmp_open => match event {
                    Some(event) => self.qmp_event(event),
                    None => qmp_open = false,
                },
                (client, outcome) = self.disk.changed() => self.disk_changed(client, outcome),
                () = self.keeping.done() => self.vcpus.release(),
                _ = space.tick() => self.look_at_space(),
                () = sleep_until(deadline) => self.deadline_passed(),
                _ = inputs.terminate.recv() => self.stop(None, None),
                () = inputs.starter.ended() => self.end_with_starter(),
                Some(reason) = inputs.devices_lost.recv() => self.end_without_device(reason),
                () = &mut steward_gone, if has_steward => {
                    has_steward = false;
                    self.end_without_steward();
                }
                status = &mut inputs.vm_end => {
                    break status.unwrap_or_else(|_| Err(std::io::Error::other("its watcher ended")));
                }
            }
        };
        // The guest's last messages are still to be heard.
        while let Ok(input) = inputs.guest.try_recv() {
            self.guest_input(input);
        }
        while let Ok(event) = inputs.qmp.try_recv() {
            self.qmp_event(event);
        }
        let outcome = self.outcome(&vm_end);
        (
            outcome,
            self.clients.into_values().filter(|client| client.greeted).map(|client| client.sink).collect(),
        )
    }

    fn qmp_event(&mut self, event: QmpEvent) {
        match event {
            QmpEvent::BlockError { nospace: true, node } => {
                tracing::warn!(node, "a write met a full disk");
                self.vcpus.disk_full();
                self.show_pause();
            }
            QmpEvent::BlockError { nospace: false, node } => {
                self.fail(format!("the host could not write the block node {node}"));
            }
            QmpEvent::Shutdown { guest, reason } => {
                tracing::info!(guest, reason, "QEMU shuts down");
                self.shutdown_reason = Some(reason);
            }
            QmpEvent::Migration { completed } => self.keeping.migrated(completed),
            QmpEvent::Stopped => {
                self.disturb_probe();
                self.vcpus.told_by_qemu(true);
                self.qmp.examine_stop();
            }
            QmpEvent::Broken { reason } => self.fail(reason.into()),
            QmpEvent::Resumed => {
                self.vcpus.told_by_qemu(false);
                self.set_guest_clock();
            }
        }
    }

    /// A step of a switch to another overlay has ended.
    fn disk_changed(&mut self, client: ClientId, outcome: DiskOutcome) {
        let refused = |(kind, message)| ShimReply::Error { kind, message };
        let reply = match outcome {
            DiskOutcome::Prepared => ShimReply::Done,
            DiskOutcome::Switched(overlay, standstill) => {
                tracing::info!(?standstill, "the box goes on with a new overlay");
                self.watch.follow(overlay);
                standstill.map_or_else(refused, |Standstill { frozen_us, expired }| ShimReply::Switched {
                    frozen_us,
                    expired,
                })
            }
            DiskOutcome::Failed(refusal) => refused(refusal),
        };
        self.reply(client, &reply);
    }

    fn look_at_space(&mut self) {
        let readings = self.watch.read();
        if let Some(wanted) = self.vcpus.wants_space(&readings) {
            self.steward.free_space(wanted);
        }
        if self.vcpus.measured(&readings) {
            self.steward.release_reserve();
        }
        self.show_pause();
        if readings.written != self.claimed_at {
            self.claimed_at = readings.written;
            self.steward.follow_claim();
        }
        self.main.tick(&self.guest);
        self.follow_clock();
        self.executions.tick(Instant::now(), &self.guest);
        self.drop_clients_that_do_not_read();
        self.end_unattended_maintenance();
        self.stop_unused();
    }

    /// Stops a box that nobody has used for as long as it may be.
    fn stop_unused(&mut self) {
        let probes = self.health.as_ref().map(HealthWatch::cpu).unwrap_or_default();
        let current = BoxUse {
            engaged: !matches!(self.phase, DriverPhase::Running)
                || self.main.has_client()
                || self.ops.have_asker()
                || self.executions.are_in_use()
                || !self.vcpus.may_run(),
            frames: self.network.as_ref().map_or(0, |counts| counts.from_guest() + counts.to_guest()),
            is_probing: self.health.as_ref().is_some_and(HealthWatch::is_probing),
            cpu: idle::cpu_time(self.vm_pid).map(|used| used.saturating_sub(probes)),
        };
        let Some(watch) = &mut self.idle else { return };
        if let Some(unused) = watch.observe(Instant::now(), current) {
            tracing::info!(seconds = unused.as_secs(), "nobody uses the box, and it is stopped");
            self.idle = None;
            self.unused_for = Some(unused);
            self.stop(None, None);
        }
    }

    /// Shows to the host whether and why the guest is paused.
    fn show_pause(&mut self) {
        let by_user = self.vcpus.is_paused_by_user().then(|| PauseReason::user(&self.spec.box_dir));
        let for_space = || {
            self.vcpus.paused_by().and_then(|by| match by {
                PausedBy::Quota => Some(PauseReason::quota(self.vcpus.quota()?, self.watch.overlay())),
                PausedBy::Host(by) => {
                    let (cause, path) = self.watch.place(by.place())?;
                    let resumes_at = self.vcpus.resumes_at(by.place());
                    Some(PauseReason { cause, path, resumes_at, quota: None })
                }
            })
        };
        let reason = by_user.or_else(for_space);
        match self.pause.show(reason) {
            Ok(change) => self.steward.pause_changed(change),
            Err(error) => tracing::warn!(error = %error.chain(), "the guest's pause is not shown"),
        }
    }

    /// A maintenance boot is of use only to a connected client.
    fn end_unattended_maintenance(&mut self) {
        if !self.clients.is_empty() || self.spec.purpose == Purpose::Run {
            self.visited = Instant::now();
        } else if self.visited.elapsed() > UNATTENDED_TIMEOUT {
            self.stop(None, None);
        }
    }

    fn client_input(&mut self, id: ClientId, input: ClientInput) {
        match input {
            ClientInput::Connected(sink) => {
                self.clients.insert(id, Client { sink, greeted: false, waits: false });
            }
            ClientInput::Gone => self.forget(id),
            ClientInput::Frame(frame) => {
                if let Err(error) = self.client_frame(id, frame) {
                    tracing::warn!(%error, "a client broke the protocol and is dropped");
                    self.forget(id);
                }
            }
        }
    }

    fn forget(&mut self, id: ClientId) {
        if self.clients.remove(&id).is_some() {
            self.main.detach(id, &self.guest);
            let paused = !self.vcpus.may_run();
            self.ops.abandon(id, &self.guest, paused);
            self.executions.client_lost(id, &self.guest, paused);
        }
    }

    fn drop_clients_that_do_not_read(&mut self) {
        let slow: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.sink.queued() > CLIENT_QUEUE_LIMIT)
            .map(|(&id, _)| id)
            .collect();
        for id in slow {
            tracing::warn!("a client does not read its answers and is dropped");
            self.forget(id);
        }
    }

    fn reply(&self, id: ClientId, reply: &ShimReply) {
        if let Some(client) = self.clients.get(&id) {
            let _ = client.sink.control(reply);
        }
    }
}

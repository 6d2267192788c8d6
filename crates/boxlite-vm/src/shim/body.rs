//! What a shim does from when its QEMU runs to its last instruction.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite_home::{BoxPaths, durable};
use boxlite_proto::{BootConfig, Frame, MAIN_CHANNEL, Op, ProtoError, ShimReply, ToGuest};
use boxlite_types::{Doing, Error, Result};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::assignment::{Machine, home_of};
use super::control;
use super::driver::{Driver, Gate, Inputs, Keeping};
use super::kin::Kin;
use super::launch::LaunchSpec;
use super::log::CappedFile;
use super::outcome::{End, Outcome, OutcomeSlot};
use super::reservation::Reservation;
use super::sink::{self, FrameSink, FrameSource};
use super::template::Origin;

/// How long clients get to read the last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// The end of QEMU's complaints that is kept for the outcome, in bytes.
const COMPLAINT: usize = 1024;

/// Everything that a box in its shim is made of.
pub(super) struct Body {
    pub(super) spec: LaunchSpec,
    pub(super) paths: BoxPaths,
    pub(super) machine: Machine,
    pub(super) listener: std::os::unix::net::UnixListener,
    pub(super) terminate: tokio::signal::unix::Signal,
    pub(super) slot: Arc<OutcomeSlot>,
    pub(super) reservation: Reservation,
    pub(super) _kin: Kin,
}

impl Body {
    /// Runs the box to its end.
    pub(super) async fn run(self) -> Result<()> {
        let Machine { vm, plugs, qmp, qmp_events, template, .. } = self.machine;
        let (guest, to_guest) = sink::queue();
        let unsendable = |error: ProtoError| {
            Error::invalid("the box's configuration cannot be sent to its guest").because(error)
        };
        boot_message(&self.spec.boot).map_err(unsendable)?;
        // All of it waits for the agent, which takes one after the other once it is ready for it.
        if let Some(main) = &self.spec.main {
            let exec = Op::Exec { id: MAIN_CHANNEL, spec: main.clone() };
            guest.control(&ToGuest::Op(exec)).map_err(unsendable)?;
        }
        let doing = "attaching to QEMU of";
        let dir = self.spec.box_dir.clone();
        let (agent_read, agent_write) = tokio(vm.agent).doing(doing, &dir)?.into_split();
        let (keeping, gate) = match (&self.spec.origin, vm.memory) {
            (Origin::Template(_), _) => Keeping::not_any_more(),
            (Origin::BootAndKeep(keep), Some(memory)) => {
                Keeping::wanted(keep.clone(), home_of(&self.spec)?, memory)
            }
            (Origin::Boot | Origin::BootAndKeep(_), _) => Keeping::unwanted(),
        };
        tokio::spawn(speak(agent_write, gate, self.spec.boot.clone(), to_guest));
        let (guest_sender, guest_inputs) = mpsc::channel(64);
        tokio::spawn(control::read_agent(agent_read, guest_sender));
        let console = CappedFile::start(&self.paths.console_log(), self.spec.logs.console, true)?;
        tokio::spawn(keep_console(tokio(vm.console).doing(doing, &dir)?, console));
        let complaint = Arc::new(Mutex::new(String::new()));
        let stderr = tokio::net::unix::pipe::Receiver::from_owned_fd(vm.stderr.into()).doing(doing, &dir)?;
        let complaining = tokio::spawn(keep_complaints(stderr, Arc::clone(&complaint)));
        let vm_pid = vm.child.id();
        let vm_handle = pidfd(vm_pid).doing(doing, &dir)?;
        let handle_to_kill = vm_handle.try_clone().doing(doing, &dir)?;
        let (ended, vm_end) = oneshot::channel();
        tokio::spawn(watch(vm.child, vm_handle, ended));
        let parts: Vec<_> = plugs.into_iter().filter_map(|plug| plug.task).map(run_part).collect();
        let listener = tokio::net::UnixListener::from_std(self.listener).doing(doing, &dir)?;
        let (client_sender, clients) = mpsc::channel(64);
        let connections = TaskTracker::new();
        let serving = tokio::spawn(control::serve(listener, connections.clone(), client_sender));
        let slot = Arc::clone(&self.slot);
        let reserving = tokio::task::spawn_blocking(move || slot.sync());

        let inputs =
            Inputs { guest: guest_inputs, clients, qmp: qmp_events, vm_end, terminate: self.terminate };
        let driver = Driver::new(self.spec, vm_pid, handle_to_kill, guest, qmp, self.reservation, keeping)?;
        let (mut outcome, sinks) = driver.run(inputs).await;

        for part in parts {
            part.abort();
        }
        serving.abort();
        let _ = tokio::time::timeout(FAREWELL, complaining).await;
        explain(&mut outcome, &complaint.lock().unwrap_or_else(PoisonError::into_inner));
        tracing::info!(?outcome, "the box has ended");
        if let Ok(Err(error)) = reserving.await {
            tracing::warn!(error = %error.chain(), "the outcome's room may not be durable");
        }
        if let (End::BootFailed { .. }, Some(template)) = (&outcome.end, template)
            && let Err(error) = template.unlink()
        {
            tracing::warn!(error = %error.chain(), "the template of a guest that did not come up could not be discarded");
        }
        let published = self.slot.publish(&outcome);
        bid_farewell(sinks, connections, &outcome).await;
        durable::remove_volatile(&self.paths.socket())?;
        published
    }
}

/// Tells the agent about its box as soon as it may know, with the time that it is then, and after that whatever there is to
/// be told.
async fn speak(mut agent: OwnedWriteHalf, gate: Gate, boot: BootConfig, rest: FrameSource) -> io::Result<()> {
    gate.opened().await;
    let boot = boot_message(&boot).map_err(io::Error::other)?;
    agent.write_all(&boot.to_bytes()).await?;
    rest.drain_into(agent).await
}

fn boot_message(boot: &BootConfig) -> Result<Frame, ProtoError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Frame::control(&ToGuest::Boot(BootConfig {
        clock_unix_nanos: now.map_or(0, |now| now.as_nanos() as u64),
        entropy: rand::random::<[u8; 32]>().to_vec(),
        ..boot.clone()
    }))
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
            tracing::error!(error = %error.chain(), "a part of the box failed");
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

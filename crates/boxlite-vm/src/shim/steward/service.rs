//! The steward's side: it carries out what its shim asks, and what is to be done at the end.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use boxlite_home::admission::Claim;
use boxlite_home::durable::{self, Slot};
use boxlite_home::lease::Leased;
use boxlite_home::{BoxPaths, Home, Reserve};
use boxlite_types::{Doing, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::events::RunEvents;
use super::request::{LogName, Request, answer};
use crate::net::Mailbox;
use crate::shim::claim::DiskClaim;
use crate::shim::confinement;
use crate::shim::groups;
use crate::shim::launch::{GuestOrigin, LaunchSpec};
use crate::shim::log::{LogFiles, OwnFiles};
use crate::shim::outcome::Outcome;
use crate::shim::relief::{CollectGarbage, SpaceRelief};
use crate::shim::template::{self, Kept};
use crate::shim::tie::Tie;

/// How long what ran for the box may take to be gone once its shim is.
const LAST_ENDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The things that a steward is in charge of.
#[derive(Debug)]
pub(in crate::shim) struct Charge {
    pub(in crate::shim) spec: LaunchSpec,
    pub(in crate::shim) home: Home,
    pub(in crate::shim) claim: DiskClaim,
    /// The host's memory promised to the box.
    pub(in crate::shim) promise: Option<Claim>,
    /// The list of user ids in use, with the box's.
    pub(in crate::shim) identity: Option<OwnedFd>,
    /// The template that the guest was restored from.
    pub(in crate::shim) template: Option<Leased>,
    /// The memory of a guest that is to be kept as a template.
    pub(in crate::shim) memory: Option<File>,
    /// The processes that run for the box.
    pub(in crate::shim) children: Vec<ChildHandle>,
    /// By what other boxes of its networks find the box.
    pub(in crate::shim) mailboxes: Vec<Mailbox>,
    /// The starter with which the box ends.
    pub(in crate::shim) tie: Option<Tie>,
    /// The box's lock, which is the last that goes.
    pub(in crate::shim) lock: OwnedFd,
}

/// A process that its shim has started.
#[derive(Debug)]
pub(in crate::shim) struct ChildHandle {
    pub(in crate::shim) handle: OwnedFd,
    /// The number of the process group of a program that serves a device.
    pub(in crate::shim) device_group: Option<u32>,
}

impl Charge {
    pub(super) fn box_dir(&self) -> &Path {
        &self.spec.box_dir
    }

    /// Every descriptor of it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let claims = [self.claim.descriptor(), self.promise.as_ref().map(|claim| claim.as_fd().as_raw_fd())];
        let children = self.children.iter().map(|child| child.handle.as_raw_fd());
        let template = self.template.iter().map(|template| template.file().as_raw_fd());
        std::iter::once(self.lock.as_raw_fd())
            .chain(claims.into_iter().flatten())
            .chain(self.identity.iter().map(AsRawFd::as_raw_fd))
            .chain(template)
            .chain(self.memory.iter().map(AsRawFd::as_raw_fd))
            .chain(children)
            .chain(self.mailboxes.iter().flat_map(Mailbox::descriptors))
            .chain(self.tie.iter().flat_map(Tie::descriptors))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// The steward of one box.
#[derive(Debug)]
pub(in crate::shim) struct Steward {
    charge: Charge,
    paths: BoxPaths,
    events: RunEvents,
    socket: OwnedFd,
    template_socket: OwnedFd,
    shim: OwnedFd,
    runs: bool,
    /// The flush reserve was released for this run.
    reserve_released: bool,
}

impl Steward {
    pub(super) fn new(charge: Charge, socket: OwnedFd, template_socket: OwnedFd, shim: OwnedFd) -> Self {
        let paths = BoxPaths::new(charge.spec.box_dir.clone());
        let events = RunEvents::of(&charge.spec, &charge.home);
        Self { charge, paths, events, socket, template_socket, shim, runs: false, reserve_released: false }
    }

    /// Serves its shim until that has gone, and cleans up behind the box. Returns whether the box ran.
    ///
    /// `collect` is what collects garbage in the home.
    pub(in crate::shim) fn serve(mut self, shim: u32, collect: CollectGarbage) -> bool {
        if self.charge.spec.jail.is_some() {
            groups::join(self.charge.spec.group(), shim);
            let devices = self.charge.children.iter().filter_map(|child| child.device_group).collect();
            if let Err(error) = confinement::confine(&self.charge.spec, devices) {
                // The shim ends the box at once.
                tracing::error!(error = %error.chain(), "the steward cannot be confined");
                return false;
            }
        }
        // It waits for as long as the starter lives, and so for no longer than this process.
        if let Some(tie) = self.charge.tie.take() {
            in_background("boxlite-tie", move || tie.watch());
        }
        let synced = self.sync_outcome();
        let keeping = self.keep_templates();
        let mailboxes = std::mem::take(&mut self.charge.mailboxes);
        let meeting: Vec<_> = mailboxes
            .into_iter()
            .filter_map(|mailbox| in_background("boxlite-network", move || mailbox.serve()))
            .collect();
        let mut relief = SpaceRelief::new(collect);
        while let Ok(Some(request)) = Request::receive(&self.socket) {
            self.carry_out(request, &mut relief);
        }
        self.end_devices();
        self.wait_for_all();
        if self.runs {
            self.note_end();
        }
        if let Err(error) = durable::remove_volatile(&self.paths.socket()) {
            tracing::warn!(error = %error.chain(), "the box's socket is left");
        }
        groups::remove(self.charge.spec.group());
        // The next run of the box has mailboxes at the same places. The threads of these end with the shim.
        for meeting in meeting {
            let _ = meeting.join();
        }
        let runs = self.runs;
        // With it goes the lock.
        drop(self);
        for background in synced.into_iter().chain(keeping) {
            let _ = background.join();
        }
        runs
    }

    fn carry_out(&mut self, request: Request, relief: &mut SpaceRelief) {
        match request {
            Request::Runs => self.runs = true,
            Request::FreeSpace(wanted) => {
                // A guest never waits for more than that.
                let floors = self.charge.spec.floors;
                relief.ask(wanted.min(floors.resume_at.max(floors.pause_below + 1).max(LEAST_WANTED)));
            }
            Request::FollowClaim => self.charge.claim.follow(),
            // Once: it costs a thread.
            Request::ReleaseReserve if std::mem::replace(&mut self.reserve_released, true) => {}
            Request::ReleaseReserve => release_reserve(self.charge.home.clone()),
            Request::EndDevices => self.end_devices(),
            Request::DiscardTemplate => {
                let discarded = self.charge.template.take().map(Leased::unlink);
                if let Some(Err(error)) = discarded {
                    tracing::warn!(error = %error.chain(), "the template of a guest that did not come up could not be discarded");
                }
            }
            Request::SetAside(log) => {
                let file = OwnFiles.set_aside(&self.log(log));
                self.answer(file.map(|file| vec![file]));
            }
            Request::OpenLog => self.answer(OwnFiles.open(&self.paths.main_log())),
            Request::OpenOverlay => {
                let opened = open_overlay(&self.paths.overlay());
                if opened.is_ok() {
                    self.charge.claim.begin_again();
                }
                self.answer(opened);
            }
            Request::Paused(cause) => self.events.paused(cause),
            Request::Resumed => self.events.resumed(),
            Request::Health(status) => self.events.health_changed(status),
            // They have a socket of their own.
            Request::StageTemplate | Request::KeepTemplate => self.answer(Ok(Vec::new())),
        }
    }

    fn note_end(&self) {
        let outcome = Outcome::read(&self.paths, &self.charge.spec.run_id);
        match outcome {
            Ok(outcome) => self.events.died(outcome.as_ref()),
            Err(error) => tracing::warn!(error = %error.chain(), "the run's outcome cannot be read"),
        }
    }

    fn log(&self, name: LogName) -> std::path::PathBuf {
        match name {
            LogName::Main => self.paths.main_log(),
            LogName::Console => self.paths.console_log(),
            LogName::Own => self.charge.spec.box_dir.join("shim.log"),
        }
    }

    fn answer(&self, files: Result<Vec<File>>) {
        let (done, files) = match files {
            Ok(files) => (true, files),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "what the shim asked for could not be done");
                (false, Vec::new())
            }
        };
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let _ = answer(&self.socket, done, &files);
    }

    /// Makes the outcome's room durable, in the background: the box does not wait for the disk.
    fn sync_outcome(&self) -> Option<JoinHandle<()>> {
        let path = self.paths.outcome();
        in_background("boxlite-sync", move || {
            if let Err(error) = Slot::sync_at(&path) {
                tracing::warn!(error = %error.chain(), "the outcome's room may not be durable");
            }
        })
    }

    /// Keeps the guest as a template where it is to be, in the background, as far as the shim asks.
    fn keep_templates(&mut self) -> Option<JoinHandle<()>> {
        let GuestOrigin::BootAndKeep(keep) = self.charge.spec.origin.clone() else { return None };
        let memory = self.charge.memory.take()?;
        let socket = self.template_socket.try_clone().ok()?;
        let home = self.charge.home.clone();
        in_background("boxlite-template", move || {
            let Ok(Some(Request::StageTemplate)) = Request::receive(&socket) else { return };
            let (staging, state) = match template::stage(keep, &home, memory) {
                Ok(Some(staged)) => staged,
                Ok(None) => {
                    tracing::debug!("another box keeps this template");
                    let _ = answer(&socket, false, &[]);
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the guest is not kept as a template");
                    let _ = answer(&socket, false, &[]);
                    return;
                }
            };
            let _ = answer(&socket, true, &[state.as_fd()]);
            drop(state);
            let Ok(Some(Request::KeepTemplate)) = Request::receive(&socket) else { return };
            let copied = staging.copy_memory();
            let _ = answer(&socket, copied.is_ok(), &[]);
            match copied.and_then(Kept::publish) {
                Ok(()) => tracing::info!("the guest is kept as a template"),
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the guest is not kept as a template");
                }
            }
        })
    }

    /// Kills what serves devices, as far as it has not ended.
    fn end_devices(&self) {
        for child in &self.charge.children {
            let Some(group) = child.device_group.and_then(|group| Pid::from_raw(group as i32)) else {
                continue;
            };
            if !has_ended(&child.handle, Duration::ZERO) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }

    /// Waits until the shim and everything that it started has gone.
    fn wait_for_all(&self) {
        let deadline = Instant::now() + LAST_ENDS_TIMEOUT;
        for handle in
            std::iter::once(&self.shim).chain(self.charge.children.iter().map(|child| &child.handle))
        {
            if !has_ended(handle, deadline.saturating_duration_since(Instant::now())) {
                tracing::warn!("a process of the box does not end");
            }
        }
    }
}

/// Opens an overlay for QEMU: for writing, and for reading alone once another stands on it.
fn open_overlay(path: &Path) -> Result<Vec<File>> {
    #[allow(clippy::disallowed_methods, reason = "QEMU writes the box's disk; nothing is created")]
    let open = |write: bool| {
        let mut options = File::options();
        options.read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        options.open(path).doing("opening the disk", path)
    };
    Ok(vec![open(true)?, open(false)?])
}

/// A guest that met a full disk waits for so many bytes at least.
const LEAST_WANTED: u64 = 1 << 20;

/// Whether a process has ended, within `limit`.
fn has_ended(handle: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let mut ends = [PollFd::new(handle, PollFlags::IN)];
    loop {
        match poll(&mut ends, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return ended.is_ok_and(|ended| ended > 0),
        }
    }
}

/// Gives the home's flush reserve to a guest that must finish, in the background: syncing a full disk takes time.
fn release_reserve(home: Home) {
    in_background("boxlite-reserve", move || match Reserve::for_flush(&home, 0).release() {
        Ok(released) => tracing::warn!(released, "the disk is full: the flush reserve is used for the stop"),
        Err(error) => tracing::warn!(error = %error.chain(), "the flush reserve could not be released"),
    });
}

fn in_background(name: &str, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.inspect_err(|error| tracing::warn!(%error, name, "a thread cannot be made")).ok()
}

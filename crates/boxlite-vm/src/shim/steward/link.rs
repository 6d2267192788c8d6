//! The shim's side: what it asks its steward.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_types::{Doing, Error, ErrorKind, HealthStatus, Result};
use rustix::net::SendFlags;
use tokio::io::unix::AsyncFd;

use super::request::{self, LogName, Request};
use crate::shim::log::LogFiles;
use crate::shim::pause::PauseChange;

/// A shim's connection to its steward.
#[derive(Debug)]
pub(in crate::shim) struct StewardLink {
    /// One request with an answer is under way at a time.
    socket: Mutex<OwnedFd>,
    /// Whoever keeps a template waits for longer than anybody else may.
    template: Mutex<OwnedFd>,
    /// The steward's process.
    process: OwnedFd,
}

impl StewardLink {
    pub(super) fn new(socket: OwnedFd, template: OwnedFd, process: OwnedFd) -> Arc<Self> {
        Arc::new(Self { socket: Mutex::new(socket), template: Mutex::new(template), process })
    }

    /// The box runs.
    pub(in crate::shim) fn runs(&self) {
        self.tell(Request::Runs);
    }

    /// Asks for garbage collection until `wanted` bytes are free.
    pub(in crate::shim) fn free_space(&self, wanted: u64) {
        self.tell(Request::FreeSpace(wanted));
    }

    /// The overlay has grown.
    pub(in crate::shim) fn follow_claim(&self) {
        self.tell(Request::FollowClaim);
    }

    /// Releases the home's flush reserve.
    pub(in crate::shim) fn release_reserve(&self) {
        self.tell(Request::ReleaseReserve);
    }

    /// The guest stands still, or goes on.
    pub(in crate::shim) fn pause_changed(&self, change: PauseChange) {
        match change {
            PauseChange::None => {}
            PauseChange::Paused(cause) => self.tell(Request::Paused(cause)),
            PauseChange::GoesOn => self.tell(Request::Resumed),
        }
    }

    /// The box's health has changed.
    pub(in crate::shim) fn health_changed(&self, status: HealthStatus) {
        self.tell(Request::Health(status));
    }

    /// Ends the programs that serve the box's devices.
    pub(in crate::shim) fn end_devices(&self) {
        self.tell(Request::EndDevices);
    }

    /// The guest of the template did not come up.
    pub(in crate::shim) fn discard_template(&self) {
        self.tell(Request::DiscardTemplate);
    }

    /// The file for the state of the guest's devices; `None` when the guest cannot be kept now. Blocks.
    pub(in crate::shim) fn stage_template(&self) -> Result<Option<File>> {
        let (done, files) = ask(&self.template, Request::StageTemplate)?;
        Ok(files.into_iter().next().filter(|_| done))
    }

    /// Copies the guest's memory; whether that was done. Blocks until then.
    pub(in crate::shim) fn keep_template(&self) -> Result<bool> {
        Ok(ask(&self.template, Request::KeepTemplate)?.0)
    }

    /// The overlay that lies at the box's path by now, open for reading and writing, and open for reading. Blocks.
    pub(in crate::shim) fn open_overlay(&self) -> Result<[File; 2]> {
        let (done, files) = ask(&self.socket, Request::OpenOverlay)?;
        let files: Option<[File; 2]> = files.try_into().ok().filter(|_| done);
        files.ok_or_else(|| Error::new(ErrorKind::Io, "the box's new disk could not be opened"))
    }

    /// Returns once the steward has gone, which it does not do before its shim; needs a tokio runtime.
    pub(in crate::shim) async fn gone(&self) {
        let Ok(process) = self.process.try_clone() else { return std::future::pending().await };
        // SAFETY: the registration owns the descriptor, which nothing else closes.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register(process) };
        match registered {
            Ok(process) => drop(process.readable().await),
            Err(_) => std::future::pending().await,
        }
    }

    /// Sends what has no answer. It never waits: a steward that does not keep up is asked again, or has gone.
    fn tell(&self, request: Request) {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = request.send(&*socket, SendFlags::DONTWAIT);
        // The log may be set aside through this socket.
        drop(socket);
        if let Err(error) = sent {
            tracing::debug!(%error, ?request, "the steward is not asked");
        }
    }
}

fn ask(socket: &Mutex<OwnedFd>, request: Request) -> Result<(bool, Vec<File>)> {
    let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = request.send(socket.as_fd(), SendFlags::empty()).and_then(|()| request::answered(&*socket));
    let (done, files) = asked.doing("asking", "the shim's steward")?;
    Ok((done, files.into_iter().map(File::from).collect()))
}

/// A log's files, which the steward opens and sets aside.
#[derive(Debug)]
pub(in crate::shim) struct StewardLog {
    pub(in crate::shim) link: Arc<StewardLink>,
    pub(in crate::shim) name: LogName,
}

impl LogFiles for StewardLog {
    fn set_aside(&self, path: &Path) -> Result<File> {
        let (done, files) = ask(&self.link.socket, Request::SetAside(self.name))?;
        files.into_iter().next().filter(|_| done).ok_or_else(|| refused(path))
    }

    fn open(&self, path: &Path) -> Result<Vec<File>> {
        let (done, files) = ask(&self.link.socket, Request::OpenLog)?;
        if done { Ok(files) } else { Err(refused(path)) }
    }
}

fn refused(path: &Path) -> Error {
    Error::io("opening the log", path, io::Error::other("the shim's steward could not"))
}

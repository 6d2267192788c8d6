//! What a shim was given, and how it gets from there to a running QEMU.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::body::Body;
use super::kin::Kin;
use super::launch::LaunchSpec;
use super::log::CappedFile;
use super::outcome::OutcomeSlot;
use super::plug::{self, Plug};
use super::reservation::Reservation;
use super::socket;
use super::spawn::{Order, Report};
use super::template::{self, Origin};
use super::vmm::process::{self, Vm};
use super::vmm::qmp::{Event, Qmp};
use crate::admission::Claim;
use crate::disk::lease::Leased;
use crate::durable;
use crate::error::{Doing, Error, Result};
use crate::home::{BoxPaths, Home};

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
            self.report(&Report::Ready { shim_pid: std::process::id(), vm_pid: body.machine.vm.child.id() });
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("starting the runtime for", &self.spec.box_dir)?;
        let machine = runtime.block_on(self.machine(&kin))?;
        let paths = BoxPaths::new(self.spec.box_dir.clone());
        let listener = socket::listen(&paths.socket())?;
        let slot = OutcomeSlot::reserve(&paths.outcome())?;
        let reservation = Reservation::new(self.claim.take(), &self.spec.overlay);
        let slot = Arc::new(slot);
        let body = Body { spec: self.spec.clone(), paths, machine, listener, slot, reservation, _kin: kin };
        Ok((runtime, body))
    }

    /// Starts QEMU, which boots the guest where its template is of no use.
    async fn machine(&mut self, kin: &Kin) -> Result<Machine> {
        if let Origin::Template(path) = &self.spec.origin {
            match Machine::start(&self.spec, kin).await {
                Ok(machine) => return Ok(machine),
                Err(error) => tracing::warn!(%error, "the template is discarded and the guest boots"),
            }
            if let Err(error) = durable::remove_file(path) {
                tracing::warn!(%error, "the template could not be discarded");
            }
            self.spec.origin = Origin::Boot;
        }
        Machine::start(&self.spec, kin).await
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
pub(super) fn home_of(spec: &LaunchSpec) -> Result<Home> {
    let root = spec.box_dir.ancestors().nth(2);
    Home::open(root.ok_or_else(|| Error::bug(format!("{} lies in no home", spec.box_dir.display())))?)
}

/// A running QEMU and what belongs to it.
pub(super) struct Machine {
    pub(super) vm: Vm,
    pub(super) plugs: Vec<Plug>,
    pub(super) qmp: Arc<Qmp>,
    pub(super) qmp_events: UnboundedReceiver<Event>,
    _boot_files: Vec<Leased>,
}

impl Machine {
    /// Starts QEMU and, where there is a template, has it go on from that.
    async fn start(spec: &LaunchSpec, kin: &Kin) -> Result<Self> {
        let boot_files = lease_boot_files(spec)?;
        let mut plugs = plug::plugs(spec, kin)?;
        let mut vm = process::start(spec, kin, &mut plugs)?;
        let connected = Self::connect(&mut vm, spec).await;
        if connected.is_err() {
            let _ = vm.child.kill().and_then(|()| vm.child.wait());
        }
        let (qmp, qmp_events) = connected?;
        Ok(Self { vm, plugs, qmp, qmp_events, _boot_files: boot_files })
    }

    async fn connect(vm: &mut Vm, spec: &LaunchSpec) -> Result<(Arc<Qmp>, UnboundedReceiver<Event>)> {
        let doing = "attaching to QEMU of";
        let socket =
            vm.qmp.try_clone().and_then(tokio::net::UnixStream::from_std).doing(doing, &spec.box_dir)?;
        let (qmp, mut events) = Qmp::start(socket).await.doing(doing, &spec.box_dir)?;
        if let Some(state) = vm.state {
            template::restore(&qmp, &mut events, state).await?;
        }
        Ok((qmp, events))
    }
}

/// QEMU maps its boot files for as long as it lives, so their removal would free nothing before.
fn lease_boot_files(spec: &LaunchSpec) -> Result<Vec<Leased>> {
    let lease = |path: &PathBuf| {
        let gone = || Error::not_found(format!("the boot file {} has vanished", path.display())).at(path);
        Leased::acquire(path)?.ok_or_else(gone)
    };
    let template = match &spec.origin {
        Origin::Template(path) => Some(path),
        Origin::Boot | Origin::BootAndKeep(_) => None,
    };
    [&spec.kernel, &spec.initrd].into_iter().chain(template).map(lease).collect()
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

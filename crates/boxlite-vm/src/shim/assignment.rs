//! What a shim was given, and how it gets from there to a running QEMU.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::admission::Claim;
use boxlite_home::lease::Leased;
use boxlite_home::{BoxPaths, Home};
use boxlite_types::{Doing, Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
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
            self.report(&Report::Failed { kind: error.kind(), message: error.chain().to_string() });
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
        let terminate = {
            let _context = runtime.enter();
            signal(SignalKind::terminate())
                .doing("listening for signals in the shim of", &self.spec.box_dir)?
        };
        let machine = runtime.block_on(self.machine(&kin))?;
        let paths = BoxPaths::new(self.spec.box_dir.clone());
        let listener = socket::listen(&paths.socket())?;
        let slot = OutcomeSlot::reserve(&paths.outcome())?;
        let reservation = Reservation::new(self.claim.take(), &self.spec.overlay);
        let slot = Arc::new(slot);
        let body = Body {
            spec: self.spec.clone(),
            paths,
            machine,
            listener,
            terminate,
            slot,
            reservation,
            _kin: kin,
        };
        Ok((runtime, body))
    }

    /// Starts QEMU, which boots the guest where its template is of no use.
    async fn machine(&mut self, kin: &Kin) -> Result<Machine> {
        let Origin::Template(path) = &self.spec.origin else {
            return Machine::start(&self.spec, None, kin).await;
        };
        let Some(template) = Leased::acquire(path)? else {
            tracing::info!("the template has gone, and the guest boots");
            return self.boot(kin).await;
        };
        match Machine::start(&self.spec, Some(&template), kin).await {
            Ok(machine) => Ok(Machine { template: Some(template), ..machine }),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the guest is not restored, and boots");
                if error.kind() == ErrorKind::Corrupt {
                    template.unlink()?;
                }
                self.boot(kin).await
            }
        }
    }

    async fn boot(&mut self, kin: &Kin) -> Result<Machine> {
        self.spec.origin = Origin::Boot;
        Machine::start(&self.spec, None, kin).await
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
    /// What it was restored from.
    pub(super) template: Option<Leased>,
    _boot_files: Vec<Leased>,
}

impl Machine {
    /// Starts QEMU and, where there is a template, has it go on from that.
    async fn start(spec: &LaunchSpec, template: Option<&Leased>, kin: &Kin) -> Result<Self> {
        let boot_files = lease_boot_files(spec)?;
        let mut plugs = plug::plugs(spec, kin)?;
        let mut vm = process::start(spec, template, kin, &mut plugs)?;
        let connected = Self::connect(&mut vm, spec).await;
        let (qmp, qmp_events) = connected.map_err(|error| abandon(&mut vm, error))?;
        Ok(Self { vm, plugs, qmp, qmp_events, template: None, _boot_files: boot_files })
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

/// Ends a QEMU that is of no use because of `error`, to which its own words are added.
fn abandon(vm: &mut Vm, error: Error) -> Error {
    let _ = vm.child.kill().and_then(|()| vm.child.wait());
    let mut words = String::new();
    let _ = vm.stderr.by_ref().take(1024).read_to_string(&mut words);
    match words.trim() {
        "" => error,
        words => Error::new(error.kind(), format!("{error}; QEMU said: {words}")).because(error),
    }
}

/// QEMU maps its kernel and initramfs for as long as it lives, so their removal would free nothing before.
fn lease_boot_files(spec: &LaunchSpec) -> Result<Vec<Leased>> {
    let lease = |path: &PathBuf| {
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

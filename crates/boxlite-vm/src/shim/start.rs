//! From the descriptors that a shim inherits to a running QEMU.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::admission::{Claim, Claims, LiveClaim};
use boxlite_home::lease::Leased;
use boxlite_home::{BoxPaths, Home};
use boxlite_types::{Doing, Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::child::ChildSpawner;
use super::claim::DiskClaim;
use super::confinement;
use super::handover::{LaunchMessage, LaunchReport};
use super::launch::{GuestOrigin, LaunchSpec};
use super::log::CappedFile;
use super::machine::Machine;
use super::outcome::OutcomeSlot;
use super::pause::PauseSlot;
use super::relief::{CollectGarbage, SpaceRelief};
use super::running::RunningBox;
use super::socket;

/// Everything that a shim was given by its starter.
#[derive(Debug)]
pub struct ShimLaunch {
    spec: LaunchSpec,
    status: File,
    lock: OwnedFd,
    claim: Option<Claim>,
    /// What the box was promised of the host's memory, until this process ends.
    _promise: Option<Claim>,
}

/// A box that is to be removed because its run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedBox {
    /// The home's directory.
    pub home: PathBuf,
    /// The box's id.
    pub id: String,
}

impl ShimLaunch {
    /// Takes what the starter sent; the descriptors are this process's own from here on.
    pub(super) fn receive(
        mut spec: File,
        status: OwnedFd,
        lock: OwnedFd,
        claims: Vec<OwnedFd>,
    ) -> Result<Self> {
        let mut text = Vec::new();
        spec.read_to_end(&mut text).doing("reading", "the launch specification")?;
        let LaunchMessage { spec, claimed, promised } = serde_json::from_slice(&text)
            .map_err(|error| Error::bug("the launch specification cannot be understood").because(error))?;
        let home = spec.home()?;
        let mut descriptors = claims.into_iter();
        let mut adopt = |claims: fn(&Home) -> Result<Claims>, range: Option<LiveClaim>| {
            let Some(range) = range else { return Ok(None) };
            let descriptor = descriptors.next().ok_or_else(|| Error::bug("a claim was not handed over"))?;
            claims(&home)?.adopt(descriptor, range).map(Some)
        };
        let (claim, promise) = (adopt(Claims::open, claimed)?, adopt(Claims::on_memory, promised)?);
        Ok(Self { spec, status: File::from(status), lock, claim, _promise: promise })
    }

    /// Where this shim's own words go: `boxes/<id>/shim.log`, bounded.
    pub fn log(&self) -> Result<impl Write + Send + 'static> {
        let path = self.spec.box_dir.join("shim.log");
        Ok(OwnLog { file: CappedFile::start(&path, 256 * 1024)?, left_out: 0 })
    }

    /// The directory of the home that the box lies in.
    pub fn home_root(&self) -> PathBuf {
        self.spec.box_dir.ancestors().nth(2).unwrap_or(&self.spec.box_dir).to_owned()
    }

    /// Runs the box to its end; call it on the process's main thread, which QEMU's life hangs on. Returns the box if it is
    /// to be removed now; its lock is released then.
    ///
    /// The starter has been told of a failure when this returns one.
    ///
    /// `collect` is asked when the guest is about to be paused because the host's disk is nearly full.
    pub fn run(mut self, collect: CollectGarbage) -> Result<Option<EndedBox>> {
        let result = self.start(collect).and_then(|(runtime, running)| {
            self.report(&LaunchReport::Ready {
                shim_pid: std::process::id(),
                vm_pid: running.machine.vm.process.pid,
            });
            runtime.block_on(running.run())
        });
        if let Err(error) = &result {
            let (kind, cause, message) = (error.kind(), error.cause(), error.chain().to_string());
            self.report(&LaunchReport::Failed { kind, cause, message });
        }
        result?;
        if !self.spec.auto_remove {
            return Ok(None);
        }
        let home = self.spec.home()?.root().to_owned();
        Ok(Some(EndedBox { home, id: self.spec.box_id.clone() }))
    }

    fn start(&mut self, collect: CollectGarbage) -> Result<(tokio::runtime::Runtime, RunningBox)> {
        // A crash of QEMU must not write the guest's memory to the host's disk.
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::Core, none).doing("limiting", "core dumps")?;
        let lock = self.lock.try_clone().doing("keeping the lock of", &self.spec.box_dir)?;
        let spawner = ChildSpawner::new(lock);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("starting the runtime for", &self.spec.box_dir)?;
        let terminate = {
            let _context = runtime.enter();
            signal(SignalKind::terminate())
                .doing("listening for signals in the shim of", &self.spec.box_dir)?
        };
        let machine = runtime.block_on(self.machine(&spawner))?;
        let paths = BoxPaths::new(self.spec.box_dir.clone());
        let listener = socket::listen(&paths.socket())?;
        let slot = OutcomeSlot::reserve(&paths.outcome())?;
        let pause = PauseSlot::reserve(&paths.pause(), &self.spec.run_id)?;
        let claim = DiskClaim::new(self.claim.take(), &self.spec.overlay);
        let slot = Arc::new(slot);
        if self.spec.jail.is_some() {
            confinement::confine(&self.spec, &spawner)?;
        }
        let running = RunningBox {
            spec: self.spec.clone(),
            paths,
            machine,
            listener,
            terminate,
            slot,
            claim,
            pause,
            relief: SpaceRelief::new(collect),
            _spawner: spawner,
        };
        Ok((runtime, running))
    }

    /// Starts QEMU, which boots the guest where its template is of no use.
    async fn machine(&mut self, spawner: &ChildSpawner) -> Result<Machine> {
        let GuestOrigin::Template(path) = &self.spec.origin else {
            return Machine::start(&self.spec, None, spawner).await;
        };
        let Some(template) = Leased::acquire(path)? else {
            tracing::info!("the template has gone, and the guest boots");
            return self.boot(spawner).await;
        };
        match Machine::start(&self.spec, Some(&template), spawner).await {
            Ok(machine) => Ok(Machine { template: Some(template), ..machine }),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the guest is not restored, and boots");
                if error.kind() == ErrorKind::Corrupt {
                    template.unlink()?;
                }
                self.boot(spawner).await
            }
        }
    }

    async fn boot(&mut self, spawner: &ChildSpawner) -> Result<Machine> {
        self.spec.origin = GuestOrigin::Boot;
        Machine::start(&self.spec, None, spawner).await
    }

    /// Tells the starter once; a starter that has gone does not matter.
    fn report(&mut self, report: &LaunchReport) {
        if let Ok(text) = serde_json::to_vec(report) {
            let _ = self.status.write_all(&text);
        }
        // Further reports, and the pipe's end, go nowhere.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            self.status = null;
        }
    }
}

/// The shim's own log. It is written with the lock of the subscriber held, so nothing in here may log.
struct OwnLog {
    file: CappedFile,
    /// Bytes that are missing behind what was last written.
    left_out: u64,
}

impl Write for OwnLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let note = match self.left_out {
            0 => String::new(),
            left_out => format!("{left_out} bytes are missing here: they could not be written\n"),
        };
        if self.file.append(&[note.as_bytes(), bytes].concat()) {
            self.left_out = 0;
        } else {
            self.left_out += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

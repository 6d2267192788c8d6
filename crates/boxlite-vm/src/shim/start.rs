//! From the descriptors that a shim inherits to a running QEMU, and to the two processes that the shim becomes then.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_home::admission::{Claim, Claims, LiveClaim};
use boxlite_home::lease::Leased;
use boxlite_home::{BoxPaths, Home};
use boxlite_types::{Doing, Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::accel::Accelerator;
use super::child::ChildSpawner;
use super::claim::DiskClaim;
use super::confinement;
use super::driver::{HostDisk, SpaceWatch};
use super::handover::{self, LaunchMessage, LaunchReport, TAKEN, WAITING, WaitSpec, wait_to_proceed};
use super::health::HealthSlot;
use super::jail::BoxJail;
use super::launch::{GuestOrigin, LaunchSpec, Purpose};
use super::log::{CappedFile, LogFiles, MainLogWriter};
use super::machine::Machine;
use super::outcome::OutcomeSlot;
use super::pause::PauseSlot;
use super::relief::CollectGarbage;
use super::running::RunningBox;
use super::socket::{self, Owner};
use super::steward::{self, Charge, ChildHandle, Fork, LogName, Steward, StewardLog};
use super::tie::Tie;
use super::vmm::process::RootDisk;

/// Everything that a shim was given by its starter.
#[derive(Debug)]
pub struct ShimLaunch {
    spec: LaunchSpec,
    /// Where the starter is heard, and waits for the report, until that is made.
    status: Option<UnixStream>,
    lock: OwnedFd,
    claim: Option<Claim>,
    /// The host's memory promised to the box.
    promise: Option<Claim>,
    /// The process with which the box ends, until the steward watches it.
    starter: Option<OwnedFd>,
    /// The disks of the box's named volumes with the locks on them, until QEMU has them.
    volumes: Vec<File>,
    /// The things that it is to wait with for its box.
    wait: Option<WaitSpec>,
    /// The lock that the box had before this shim's took its place: whoever has that file open finds that the box runs.
    #[allow(dead_code, reason = "it is held, and never used")]
    replaced_lock: Option<OwnedFd>,
    /// The shim's own log, once it is asked for; empty while there is no box.
    log: Option<Arc<Mutex<Option<CappedFile>>>>,
}

/// One of the two processes that a shim becomes.
enum ShimPart {
    Shim(tokio::runtime::Runtime, Box<RunningBox>),
    Steward(Box<Steward>),
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
    pub(super) fn receive(spec: File, status: OwnedFd, lock: OwnedFd, claims: Vec<OwnedFd>) -> Result<Self> {
        let HandedOver { spec, claim, promise, starter, volumes, wait } = HandedOver::read(spec, claims)?;
        let status = Some(UnixStream::from(status));
        let (replaced_lock, log) = (None, None);
        Ok(Self { spec, status, lock, claim, promise, starter, volumes, wait, replaced_lock, log })
    }

    /// Where this shim's own words go: `boxes/<id>/shim.log`, bounded.
    pub fn log(&mut self) -> Result<impl Write + Send + 'static> {
        let file = match self.wait {
            None => Some(self.own_log()?),
            Some(_) => None,
        };
        let file = Arc::new(Mutex::new(file));
        self.log = Some(Arc::clone(&file));
        Ok(OwnLog { file, left_out: 0 })
    }

    fn own_log(&self) -> Result<CappedFile> {
        CappedFile::start(&self.spec.box_dir.join("shim.log"), 256 * 1024)
    }

    /// The directory of the home that the box lies in.
    pub fn home_root(&self) -> PathBuf {
        self.spec.box_dir.ancestors().nth(2).unwrap_or(&self.spec.box_dir).to_owned()
    }

    /// Runs the box to its end; call it on the process's main thread, which QEMU's life hangs on, while there is no other.
    ///
    /// It returns in two processes, the shim and its steward. In the latter it returns the box if it is to be removed now; its
    /// lock is released then.
    ///
    /// The starter has been told of a failure when this returns one.
    ///
    /// `collect` is asked when the guest is about to be paused because the host's disk is nearly full.
    pub fn run(mut self, collect: CollectGarbage) -> Result<Option<EndedBox>> {
        let shim = std::process::id();
        let result = match self.start() {
            Ok(ShimPart::Steward(steward)) => {
                let ended = EndedBox { home: self.home_root(), id: self.spec.box_id.clone() };
                let removes_itself = self.spec.auto_remove;
                // Its descriptors are closed.
                std::mem::forget(self);
                return Ok((steward.serve(shim, collect) && removes_itself).then_some(ended));
            }
            Ok(ShimPart::Shim(runtime, running)) => {
                running.steward.runs();
                self.report(&LaunchReport::Ready { shim_pid: shim, vm_pid: running.machine.vm.process.pid });
                runtime.block_on(running.run())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            let (kind, cause, message) = (error.kind(), error.cause(), error.chain().to_string());
            self.report(&LaunchReport::Failed { kind, cause, message });
        }
        result.map(|()| None)
    }

    fn start(&mut self) -> Result<ShimPart> {
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
        let mut machine = match self.wait {
            None => runtime.block_on(self.machine(&spawner))?,
            Some(wait) => self.wait_for_box(wait, &runtime, &spawner)?,
        };
        // Up to here nothing was written of the box, and its guest does not know yet which one it is.
        if let Some(status) = &self.status
            && let Err(error) = wait_to_proceed(status)
        {
            let _ = machine.vm.process.end();
            return Err(error);
        }
        // From here on a volume is free once QEMU has gone, and not only when the last of the box's processes has.
        self.volumes.clear();
        let paths = BoxPaths::new(self.spec.box_dir.clone());
        let listener = socket::listen(&paths.socket())?;
        let slot = OutcomeSlot::reserve(&paths.outcome())?;
        let pause = PauseSlot::reserve(&paths.pause(), &self.spec.run_id)?;
        let health = match &self.spec.boot.health {
            Some(_) => Some(HealthSlot::reserve(&paths.health(), &self.spec.run_id)?),
            None => None,
        };
        let mut log = match self.spec.purpose {
            Purpose::Run => MainLogWriter::start(&paths.main_log(), self.spec.logs.main)?,
            Purpose::Maintenance => MainLogWriter::untouched(&paths.main_log()),
        };
        let mut console = CappedFile::start(&paths.console_log(), self.spec.logs.console)?;
        let watch = SpaceWatch::new(&self.spec);
        let owner = Owner::own();
        let (tie, tied) = Tie::of(self.starter.take()).doing("tying to its starter", &self.spec.box_dir)?;
        let charge = Charge { tie, ..self.charge(&mut machine, &spawner)? };
        let own_log =
            self.log.as_ref().and_then(|log| lock_log(log).as_ref().and_then(CappedFile::descriptor));
        let steward = match steward::fork(charge, own_log)? {
            Fork::Shim(steward) => steward,
            Fork::Steward(steward) => {
                // This process's side of its shim is closed, and its shim goes on with it.
                std::mem::forget((
                    runtime, terminate, machine, listener, slot, pause, health, log, console, watch, tied,
                ));
                std::mem::forget(spawner);
                return Ok(ShimPart::Steward(steward));
            }
        };
        let files = |name| -> Arc<dyn LogFiles> { Arc::new(StewardLog { link: Arc::clone(&steward), name }) };
        log.entrust(&files(LogName::Main));
        console.entrust(files(LogName::Console));
        if let Some(log) = &self.log
            && let Some(own) = lock_log(log).as_mut()
        {
            own.entrust(files(LogName::Own));
        }
        if let Some(jail) = &machine.jail {
            confinement::seclude(&self.spec, jail.identity(), spawner.spawned())?;
        }
        let overlay = machine.vm.overlay.take();
        let overlay = overlay.ok_or_else(|| Error::bug("QEMU was started without an overlay"))?;
        let running = RunningBox {
            spec: self.spec.clone(),
            machine,
            listener,
            owner,
            terminate,
            tied,
            slot,
            disk: HostDisk { log, overlay, watch, pause, health, steward: Arc::clone(&steward) },
            console,
            steward,
            _spawner: spawner,
        };
        Ok(ShimPart::Shim(runtime, Box::new(running)))
    }

    /// Returns the charge that the steward of the box takes over.
    fn charge(&mut self, machine: &mut Machine, spawner: &ChildSpawner) -> Result<Charge> {
        let doing = "handing over to the steward of";
        let place = &self.spec.box_dir;
        let device = |pid: u32| machine.backends.iter().any(|backend| backend.process_group == Some(pid));
        let children = spawner.handles().doing(doing, place)?;
        let children = children
            .into_iter()
            .map(|(pid, handle)| ChildHandle { handle, device_group: device(pid).then_some(pid) })
            .collect();
        let identity =
            machine.jail.as_ref().and_then(BoxJail::in_use).map(|file| file.as_fd().try_clone_to_owned());
        Ok(Charge {
            home: self.spec.home()?,
            spec: self.spec.clone(),
            claim: DiskClaim::new(self.claim.take(), written_files(&self.spec)),
            promise: self.promise.take(),
            identity: identity.transpose().doing(doing, place)?,
            template: machine.template.take(),
            memory: machine.vm.memory.take(),
            children,
            mailboxes: machine
                .backends
                .iter_mut()
                .flat_map(|backend| std::mem::take(&mut backend.mailboxes))
                .collect(),
            tie: None,
            lock: self.lock.try_clone().doing(doing, place)?,
        })
    }

    /// Restores a guest that waits for its box, waits, and gives it the box that comes.
    ///
    /// # Errors
    /// `Io` once the starter has gone.
    fn wait_for_box(
        &mut self,
        wait: WaitSpec,
        runtime: &tokio::runtime::Runtime,
        spawner: &ChildSpawner,
    ) -> Result<Machine> {
        let GuestOrigin::Template(path) = &self.spec.origin else {
            return Err(Error::bug("a guest without a template cannot wait for its box"));
        };
        let gone = || Error::not_found("the template has gone").at(path);
        let template = Leased::acquire(path)?.ok_or_else(gone)?;
        let disk = RootDisk::Later { file_size: wait.file_size };
        let machine = Machine::start(&self.spec, Some(&template), &[], disk, spawner);
        let machine = runtime.block_on(machine)?;
        let mut machine = Machine { template: Some(template), ..machine };
        if matches!(self.spec.accel, Accelerator::Tcg { .. }) {
            machine.rehearse();
        }
        let taken = self.receive_box().and_then(|()| runtime.block_on(machine.take_box(&self.spec)));
        let taken = taken.and_then(|()| self.say(TAKEN));
        match taken {
            Ok(()) => Ok(machine),
            Err(error) => {
                let _ = machine.vm.process.end();
                Err(error)
            }
        }
    }

    /// Waits for the box, and makes it this shim's.
    fn receive_box(&mut self) -> Result<()> {
        self.say(WAITING)?;
        let doing = "waiting for a box in";
        let status = self.status.as_ref().ok_or_else(|| Error::bug("a waiting shim has no starter"))?;
        let descriptors = handover::await_box(status).doing(doing, &self.spec.box_dir)?;
        let mut descriptors = descriptors.into_iter();
        let (Some(message), Some(lock)) = (descriptors.next(), descriptors.next()) else {
            return Err(Error::new(
                ErrorKind::Io,
                "the starter has ended before it had a box for this guest",
            ));
        };
        let received = HandedOver::read(message.into(), descriptors.collect())?;
        // The memory that this guest was promised while it waited is promised anew, as the box's.
        (self.claim, self.promise) = (received.claim, received.promise);
        self.spec = received.spec;
        self.replaced_lock = Some(lock);
        if let Some(log) = &self.log {
            *lock_log(log) = Some(self.own_log()?);
        }
        tracing::info!("the guest has waited for this box");
        Ok(())
    }

    /// Says `word` to the starter.
    fn say(&mut self, word: u8) -> Result<()> {
        let status = self.status.as_mut().ok_or_else(|| Error::bug("a waiting shim has no starter"))?;
        status.write_all(&[word]).doing("answering the starter in", &self.spec.box_dir)
    }

    /// Starts QEMU, which boots the guest where its template is of no use.
    async fn machine(&mut self, spawner: &ChildSpawner) -> Result<Machine> {
        let GuestOrigin::Template(path) = &self.spec.origin else {
            let started = self.started(None, spawner).await;
            return match started {
                Err(error) if self.spec.plugs_shares() => {
                    let error = error.chain().to_string();
                    tracing::warn!(error, "the guest is not kept, and boots with its shares");
                    self.boot(format!("it could not be kept as a template: {error}"), spawner).await
                }
                started => started,
            };
        };
        let Some(template) = Leased::acquire(path)? else {
            tracing::info!("the template has gone, and the guest boots");
            return self.boot("its template has gone".into(), spawner).await;
        };
        match self.started(Some(&template), spawner).await {
            Ok(machine) => Ok(Machine { template: Some(template), ..machine }),
            Err(error) => {
                let reason = error.chain().to_string();
                tracing::warn!(error = reason, "the guest is not restored, and boots");
                if error.kind() == ErrorKind::Corrupt {
                    template.unlink()?;
                }
                self.boot(format!("it could not be restored: {reason}"), spawner).await
            }
        }
    }

    async fn boot(&mut self, reason: String, spawner: &ChildSpawner) -> Result<Machine> {
        self.spec.origin = GuestOrigin::Boot;
        self.spec.boot_reason = Some(reason);
        self.started(None, spawner).await
    }

    async fn started(&self, template: Option<&Leased>, spawner: &ChildSpawner) -> Result<Machine> {
        Machine::start(&self.spec, template, &self.volumes, RootDisk::AtStart, spawner).await
    }

    /// Tells the starter once; a starter that has gone does not matter.
    fn report(&mut self, report: &LaunchReport) {
        // The starter waits for the pipe's end.
        if let (Ok(text), Some(mut status)) = (serde_json::to_vec(report), self.status.take()) {
            let _ = status.write_all(&text);
        }
    }
}

/// The things that come with a box.
struct HandedOver {
    spec: LaunchSpec,
    claim: Option<Claim>,
    promise: Option<Claim>,
    starter: Option<OwnedFd>,
    volumes: Vec<File>,
    wait: Option<WaitSpec>,
}

impl HandedOver {
    /// Reads the `message`, and takes over the `descriptors` of the claims, the starter and the volumes that it names.
    fn read(mut message: File, descriptors: Vec<OwnedFd>) -> Result<Self> {
        let mut text = Vec::new();
        let doing = "reading";
        let what = "the launch specification";
        message.rewind().and_then(|()| message.read_to_end(&mut text)).doing(doing, what)?;
        let LaunchMessage { spec, claimed, promised, wait, tied } = serde_json::from_slice(&text)
            .map_err(|error| Error::bug("the launch specification cannot be understood").because(error))?;
        let home = spec.home()?;
        let mut descriptors = descriptors.into_iter();
        let mut adopt = |claims: fn(&Home) -> Result<Claims>, range: Option<LiveClaim>| {
            let Some(range) = range else { return Ok(None) };
            let descriptor = descriptors.next().ok_or_else(|| Error::bug("a claim was not handed over"))?;
            claims(&home)?.adopt(descriptor, range).map(Some)
        };
        let on_memory: fn(&Home) -> Result<Claims> =
            if wait.is_some() { Claims::of_pool } else { Claims::on_memory };
        let (claim, promise) = (adopt(Claims::open, claimed)?, adopt(on_memory, promised)?);
        let starter = if tied { descriptors.next() } else { None };
        let volumes: Vec<File> = descriptors.map(File::from).collect();
        if volumes.len() != spec.disks.len() {
            return Err(Error::bug("a volume was not handed over"));
        }
        Ok(Self { spec, claim, promise, starter, volumes, wait })
    }
}

/// The files of the home that the guest writes to.
fn written_files(spec: &LaunchSpec) -> Vec<PathBuf> {
    let volumes = spec.disks.iter().filter(|disk| !disk.mount.read_only).map(|disk| disk.path.clone());
    std::iter::once(spec.overlay.clone()).chain(volumes).collect()
}

fn lock_log(log: &Mutex<Option<CappedFile>>) -> std::sync::MutexGuard<'_, Option<CappedFile>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shim's own log. It is written with the lock of the subscriber held, so nothing in here may log.
struct OwnLog {
    file: Arc<Mutex<Option<CappedFile>>>,
    /// Bytes that are missing behind what was last written.
    left_out: u64,
}

impl Write for OwnLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let note = match self.left_out {
            0 => String::new(),
            left_out => format!("{left_out} bytes are missing here: they could not be written\n"),
        };
        let mut file = lock_log(&self.file);
        // The messages of a shim without a box go to its starter.
        let Some(file) = file.as_mut() else { return Ok(bytes.len()) };
        if file.append(&[note.as_bytes(), bytes].concat()) {
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

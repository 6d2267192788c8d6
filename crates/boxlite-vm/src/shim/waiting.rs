//! Guests that wait for a box: restored from a template before it is known which box they are for.
//!
//! # Protocol
//! The shim of such a guest is started with a [`WaitSpec`] and with hardware instead of a box. It restores the guest with a
//! disk that has no file and a network that carries nothing, says that it waits, and reads. What comes is either the box,
//! with the descriptors that any start hands over, or the end of the starter, with which it ends. It gives QEMU the box's
//! disk, puts the rules of the box's network in force, says so, and is from there on a shim that waits to go on, as any
//! other before its start is recorded.
//!
//! # What a waiting guest has
//! Its jails, control group, user id, random numbers and memory are its own from the start, and none of it was ever another
//! box's: a [`WaitingGuest`] is consumed by the one box that it is given. The control group has the name of the run, since the
//! box has no id yet.
//!
//! # Locks
//! Its processes hold the lock on a staged file, which takes the place of the box's `shim.lock` once the guest has its
//! box: so *lock free ⇔ nobody runs* holds for both. The file that it replaces stays locked by the shim, for whoever opened
//! it in between. The staged file of a starter that was killed is swept as any other.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxlite_home::admission::Claim;
use boxlite_home::durable::Staged;
use boxlite_home::{BoxPaths, Home};
use boxlite_proto::BootConfig;
use boxlite_types::{Doing, Error, ErrorKind, Result};
use rustix::net::RecvFlags;

use super::handover::{self, LaunchMessage, LaunchReport, TAKEN, WAITING, WaitSpec};
use super::jail;
use super::launch::{DiskFloors, GuestOrigin, LaunchSpec, LogCaps, Purpose};
use super::spawn::{self, HandOver, PendingShim};
use crate::net::Network;
use crate::volume::Shares;

/// The name of the staged files that the shims of waiting guests lock.
const LOCK: &str = "waiting-guest";

/// How long the shim of a waiting guest may take to answer; it has less time for each of its own steps.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// The hardware of a box, which a guest can have before it has the box.
#[derive(Debug, Clone)]
pub struct Hardware {
    spec: LaunchSpec,
    /// [`Self::spec`] as text, to compare it.
    text: String,
    /// Bytes that a file of its QEMU may have: more for a larger disk.
    file_size: u64,
}

impl Hardware {
    /// The hardware of the box of `spec`; `None` for one that no guest can wait for.
    ///
    /// A guest waits for a box only where there is a template. None waits with ports for shares or with disks for volumes; a
    /// published port cannot be given to it. The keeper of a box that is restarted is made before its shim is, and a box joins
    /// its networks before its guest runs.
    pub fn of(spec: &LaunchSpec) -> Option<Self> {
        let is_bound = |network: &Network| !network.ports.is_empty() || !network.member_of.is_empty();
        let is_bound = spec.network.as_ref().is_some_and(is_bound);
        let is_restored = matches!(spec.origin, GuestOrigin::Template(_));
        let has_devices = !spec.shares.volumes.is_empty() || !spec.disks.is_empty();
        if spec.purpose != Purpose::Run || !is_restored || has_devices || is_bound || spec.keeper.is_some() {
            return None;
        }
        let overlay = std::fs::File::open(&spec.overlay).ok()?;
        let file_size = jail::file_size(&overlay, spec.memory_bytes);
        let closed =
            |network: &Network| Network { max_connections: network.max_connections, ..Network::default() };
        let spec = LaunchSpec {
            box_id: String::new(),
            run_id: String::new(),
            group: None,
            box_dir: PathBuf::new(),
            overlay: PathBuf::new(),
            bases: Vec::new(),
            backing: None,
            network: spec.network.as_ref().map(closed),
            shares: Shares::default(),
            boot: BootConfig::default(),
            main: None,
            discard: false,
            auto_remove: false,
            stop_signal: 0,
            stop_timeout_ms: 0,
            logs: LogCaps::default(),
            floors: DiskFloors { pause_below: 0, resume_at: 0 },
            disk_quota: None,
            idle_timeout_ms: None,
            disk_io: None,
            ..spec.clone()
        };
        let text = serde_json::to_string(&spec).ok()?;
        Some(Self { spec, text, file_size })
    }

    /// Whether a guest with this hardware can have the box that has `other`.
    pub fn fits(&self, other: &Self) -> bool {
        self.text == other.text && self.file_size >= other.file_size
    }

    /// Bytes of the guest's memory.
    pub fn memory(&self) -> u64 {
        self.spec.memory_bytes
    }
}

/// A restored guest that waits for a box; it ends when this is dropped, and with this process.
#[derive(Debug)]
pub struct WaitingGuest {
    hardware: Hardware,
    run: String,
    program: PathBuf,
    status: UnixStream,
    lock: Staged,
}

impl WaitingGuest {
    /// Restores a guest with `hardware`, whose memory is promised by `promise`, by the shim program at `shim`; returns once it
    /// waits. Blocks for some hundred milliseconds.
    ///
    /// # Errors
    /// The shim's own failure with its kind; nothing of the guest is left then.
    #[allow(clippy::needless_pass_by_value, reason = "the starter's own copy is closed on return")]
    pub fn restore(home: &Home, hardware: &Hardware, shim: &Path, promise: Claim) -> Result<Self> {
        let run = uuid::Uuid::new_v4().simple().to_string();
        let spec = LaunchSpec {
            // Names its QEMU, and says where the home is.
            box_id: run.clone(),
            run_id: run.clone(),
            group: Some(run.clone()),
            box_dir: home.boxes().join(&run),
            ..hardware.spec.clone()
        };
        let wait = Some(WaitSpec { file_size: hardware.file_size });
        let message =
            LaunchMessage { spec, claimed: None, promised: Some(promise.range()), wait, tied: false };
        let message = spawn::memory_file(&message)?;
        let lock = Staged::create(&home.tmp(), LOCK)?;
        let (mut first, mut status) =
            spawn::start_program(shim, &message, &[lock.file().as_fd(), promise.as_fd()])?;
        // It has only made the shim.
        let _ = first.wait();
        hear(&mut status, WAITING)?;
        Ok(Self { hardware: hardware.clone(), run, program: shim.to_owned(), status, lock })
    }

    /// Its hardware.
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// Whether it still waits, as far as can be told.
    pub fn is_alive(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(&self.status, &mut [0; 1], flags) == Err(rustix::io::Errno::AGAIN)
    }

    /// Makes `spec` the specification of a box that this guest is given: with the run that it has begun.
    pub fn mark(&self, spec: &mut LaunchSpec) {
        spec.run_id.clone_from(&self.run);
        spec.group = Some(self.run.clone());
    }

    /// Gives the guest the box of the marked `spec`, which nothing is to be recorded of. Returns once QEMU has the box's disk;
    /// the guest hears of its box only when the shim goes on.
    ///
    /// # Errors
    /// The shim's own failure with its kind: the guest has ended then, and `hand_over` is of use to another.
    pub fn assign(self, spec: &LaunchSpec, hand_over: &HandOver) -> Result<PendingShim> {
        let Self { program, mut status, lock, .. } = self;
        let range = |claim: &Option<Claim>| claim.as_ref().map(Claim::range);
        let message = LaunchMessage {
            spec: spec.clone(),
            claimed: range(&hand_over.claim),
            promised: range(&hand_over.memory),
            wait: None,
            tied: false,
        };
        let message = spawn::memory_file(&message)?;
        let mut descriptors = vec![message.as_fd(), hand_over.lock.as_fd()];
        descriptors.extend([&hand_over.claim, &hand_over.memory].into_iter().flatten().map(AsFd::as_fd));
        let doing = "giving a waiting guest the box in";
        handover::assign(&status, &descriptors).doing(doing, &spec.box_dir)?;
        hear(&mut status, TAKEN)?;
        // The caller holds the box's guard, so nobody else changes it.
        lock.place(&BoxPaths::new(spec.box_dir.clone()).shim_lock())?;
        Ok(PendingShim { program, first: None, status })
    }
}

/// Waits for `word`, for a limited time; a shim that says something else says why it ends.
fn hear(status: &mut UnixStream, word: u8) -> Result<()> {
    let doing = "waiting for the shim of";
    status.set_read_timeout(Some(ANSWER_TIMEOUT)).doing(doing, "a waiting guest")?;
    hear_in_time(status, word)?;
    status.set_read_timeout(None).doing(doing, "a waiting guest")
}

fn hear_in_time(status: &mut UnixStream, word: u8) -> Result<()> {
    let mut said = [0; 1];
    let ended = || Error::new(ErrorKind::Io, "the shim of a waiting guest ended without a word");
    match status.read(&mut said) {
        Ok(1) if said == [word] => Ok(()),
        Ok(1) => match spawn::read_report(&mut said.as_slice().chain(status)) {
            Some(LaunchReport::Failed { kind, cause, message }) => Err(spawn::failure(kind, cause, message)),
            _ => Err(ended()),
        },
        Ok(_) => Err(ended()),
        Err(error) => Err(error).doing("hearing the shim of", "a waiting guest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(directory: &Path) -> LaunchSpec {
        let overlay = directory.join("root.qcow2");
        std::fs::write(&overlay, [0; 64]).unwrap();
        LaunchSpec { overlay, origin: GuestOrigin::Template("/h/vm/template".into()), ..LaunchSpec::sample() }
    }

    /// Mutations tried: purpose, origin, ports or keeper of a box not looked at; hardware not compared.
    #[test]
    fn a_guest_waits_only_for_a_box_of_its_own_hardware() {
        let scratch = tempfile::tempdir().unwrap();
        let spec = spec(scratch.path());
        let hardware = Hardware::of(&spec).unwrap();
        let other_box = LaunchSpec {
            box_id: "b2".into(),
            run_id: "r2".into(),
            box_dir: "/h/boxes/b2".into(),
            discard: true,
            disk_io: Some(1),
            ..spec.clone()
        };
        assert!(hardware.fits(&Hardware::of(&other_box).unwrap()));
        for other in [
            LaunchSpec { memory_bytes: 512 << 20, ..spec.clone() },
            LaunchSpec { cpus: 1, ..spec.clone() },
            LaunchSpec { cpu_percent: 50, ..spec.clone() },
            LaunchSpec { network: Some(Network::default()), ..spec.clone() },
            LaunchSpec { origin: GuestOrigin::Template("/h/vm/other".into()), ..spec.clone() },
        ] {
            assert!(!hardware.fits(&Hardware::of(&other).unwrap()), "{other:?}");
        }
        let port = boxlite_types::PortForward {
            bind: std::net::Ipv4Addr::LOCALHOST,
            host: 8080,
            guest: 80,
            protocol: boxlite_types::Protocol::Tcp,
        };
        let keeper = super::super::launch::KeeperSpec { starter: serde_json::Value::Null };
        for other in [
            LaunchSpec { origin: GuestOrigin::Boot, ..spec.clone() },
            LaunchSpec { purpose: Purpose::Maintenance, ..spec.clone() },
            LaunchSpec { keeper: Some(keeper), ..spec.clone() },
            LaunchSpec { network: Some(Network { ports: vec![port], ..Network::default() }), ..spec.clone() },
            LaunchSpec { overlay: "/no/such/disk".into(), ..spec.clone() },
        ] {
            assert!(Hardware::of(&other).is_none(), "{other:?}");
        }
    }

    /// Mutation tried: sizes not compared.
    #[test]
    fn a_guest_fits_no_larger_disk_than_its_files_may_be() {
        let scratch = tempfile::tempdir().unwrap();
        let small = Hardware::of(&spec(scratch.path())).unwrap();
        let large = Hardware { file_size: small.file_size + 1, ..small.clone() };
        assert!(large.fits(&small) && !small.fits(&large));
    }
}

//! `boxlite-virtiofsd`: serves a folder of the host to one box, and bounds by how much the box makes it grow.
//!
//! It is virtiofsd's library, its passthrough asked through a counter ([`metered`]), with the sandbox and the filter of
//! system calls that virtiofsd has. `boxlite-vm` starts it, one for each volume, with an allow-list of what it inherits.

mod account;
mod arguments;
mod headroom;
mod known_files;
mod ledger;
mod metered;
mod metering;
mod numbered;
mod recalled;
mod single_file;
mod total;

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use vhost::vhost_user::Error::Disconnected;
use vhost::vhost_user::Listener;
use vhost_user_backend::Error::HandleRequest;
use vhost_user_backend::VhostUserDaemon;
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::xattrmap::XattrMap;
use virtiofsd::passthrough::{self, CachePolicy, InodeFileHandlesMode, PassthroughFs};
use virtiofsd::sandbox::{Sandbox, SandboxMode};
use virtiofsd::seccomp::{SeccompAction, enable_seccomp};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use arguments::Arguments;
use headroom::Headroom;
use ledger::Ledger;
use metered::Metered;
use recalled::Recalled;
use total::Total;

/// The charge of an inode besides its blocks: as much as the filesystems take that take most by default.
const INODE_BYTES: u64 = 512;

/// Descriptors that are not for the guest: 509 areas of its memory, and what the daemon works with.
const OWN_DESCRIPTORS: u64 = 509 + 101;

/// How long the guest believes names and attributes.
const CACHE_TIMEOUT: Duration = Duration::from_secs(1);

/// Files that are looked at to find what the host has removed.
const MAX_COUNTED: usize = 100_000;

/// The rights that serving with the guest's ids takes, of those that root has. Without `FSETID`, a write to a file with
/// set-user-id takes that bit away, as it does for other users.
const CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _ = log::set_logger(&StandardError);
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Failure> {
    let listener = Listener::from(UnixListener::from(inherited(arguments.fd)));
    let ledger = arguments.ledger.map(|fd| inherited(fd).into());
    // A low limit is no reason for a warning, which would be the daemon's last words whatever ends it.
    log::set_max_level(log::LevelFilter::Error);
    let limit = virtiofsd::limits::setup_rlimit_nofile(None)?;
    log::set_max_level(log::LevelFilter::Warn);
    let guest_fd_limit = limit.checked_sub(OWN_DESCRIPTORS).ok_or_else(|| {
        format!("{limit} open files are too few: {OWN_DESCRIPTORS} are needed besides the guest's")
    })?;

    let (mut uid_map, mut gid_map) = (arguments.uid_map, arguments.gid_map);
    let directory = match (&arguments.shared_file, &arguments.shared_dir) {
        (Some(file), _) => {
            if arguments.sandbox != SandboxMode::Namespace {
                return Err("a single file is served from namespaces only".into());
            }
            let meant = inherited(arguments.file_fd.ok_or("the file's descriptor is missing")?).into();
            // The one user namespace is made here, so that the sandbox makes none.
            let user = uid_map.pop().zip(gid_map.pop()).map(|(uid, gid)| (uid.outside_uid, gid.outside_gid));
            single_file::stage(file, &meant, user)
                .map_err(|error| format!("{} cannot be served: {error}", file.display()))?
        }
        (None, Some(directory)) => directory.clone(),
        (None, None) => return Err("nothing to serve".into()),
    };
    let directory = directory.into_os_string().into_string().map_err(|_| "the path is not UTF-8")?;

    let mut sandbox = Sandbox::new(directory, arguments.sandbox, uid_map, gid_map);
    let mountinfo_prefix = sandbox.get_mountinfo_prefix()?;
    let listener = sandbox.enter(listener)?;
    let config = passthrough::Config {
        entry_timeout: CACHE_TIMEOUT,
        attr_timeout: CACHE_TIMEOUT,
        cache_policy: CachePolicy::Auto,
        root_dir: sandbox.get_root_dir(),
        mountinfo_prefix,
        proc_sfd_rawfd: sandbox.get_proc_self_fd(),
        proc_mountinfo_rawfd: sandbox.get_mountinfo_fd(),
        announce_submounts: true,
        // File handles would need a capability that opens any file of the filesystem.
        inode_file_handles: InodeFileHandlesMode::Never,
        readdirplus: true,
        clean_noatime: true,
        xattr: true,
        xattrmap: Some(user_attributes()?),
        // The guest's kernel would else ask for a file's capabilities before each write. There are none, and a write takes
        // set-user-id away here, without `FSETID`.
        killpriv_v2: true,
        uid_map: Some(arguments.translate_uid),
        gid_map: Some(arguments.translate_gid),
        guest_fd_limit,
        ..Default::default()
    };
    enable_seccomp(SeccompAction::Kill, false)
        .map_err(|error| format!("the filter of system calls is refused: {error:?}"))?;
    if rustix::process::geteuid().is_root() {
        drop_capabilities()?;
    }
    if arguments.readonly {
        return answer(Recalled::new(PassthroughFsRo::new(config)?, guest_fd_limit), listener);
    }
    let count: fn(u64) -> Total = |enough| total::allocated_below(Path::new("/"), enough, MAX_COUNTED);
    let open = |limit| {
        Ledger::open(limit, ledger, || match count(limit) {
            Total::Known(total) => Some(total),
            Total::AtLeast(_) => None,
        })
    };
    let ledger = arguments.size.map(open).transpose()?;
    let headroom = Headroom::new(arguments.hard_floor, arguments.inode_floor);
    let recalled = Recalled::new(PassthroughFs::new(config)?, guest_fd_limit);
    let metered = Metered::new(recalled, ledger, headroom, count);
    let metering = metered.metering();
    metering.start()?;
    let answered = answer(metered, listener);
    metering.settle();
    answered
}

/// Lets `user.*` pass, which give nobody a right, and says of all others that the filesystem has none.
fn user_attributes() -> Result<XattrMap, Failure> {
    XattrMap::try_from(":ok:all:user.:user.: :unsupported:all:::")
        .map_err(|error| format!("the map of extended attributes is wrong: {error}").into())
}

/// Answers the guest of the QEMU that connects, until that hangs up.
fn answer<F>(filesystem: F, mut listener: Listener) -> Result<(), Failure>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    let backend = Arc::new(VhostUserFsBackendBuilder::default().build(filesystem)?);
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("boxlite-virtiofs".into(), backend, memory)
        .map_err(|error| format!("the device cannot be made: {error}"))?;
    daemon.start(&mut listener).map_err(|error| format!("QEMU cannot be answered: {error}"))?;
    match daemon.wait() {
        Ok(()) | Err(HandleRequest(Disconnected)) => Ok(()),
        Err(error) => Err(format!("the connection to QEMU broke: {error}").into()),
    }
}

fn drop_capabilities() -> Result<(), Failure> {
    capng::clear(capng::Set::BOTH);
    capng::updatev(capng::Action::ADD, capng::Type::PERMITTED | capng::Type::EFFECTIVE, CAPABILITIES.to_vec())
        .and_then(|()| capng::apply(capng::Set::BOTH))
        .map_err(|error| format!("capabilities cannot be given up: {error}").into())
}

/// Takes over a descriptor that was inherited for this purpose.
fn inherited(descriptor: RawFd) -> std::os::fd::OwnedFd {
    // SAFETY: the shim opened it for this process, which takes each once; one that is not open fails at its first use.
    #[allow(unsafe_code)]
    unsafe {
        FromRawFd::from_raw_fd(descriptor)
    }
}

/// Writes what is logged to standard error, which the shim reads.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{}", record.args());
    }

    fn flush(&self) {}
}

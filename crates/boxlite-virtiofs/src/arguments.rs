//! The daemon's command line, which the shim writes.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Parser;
use virtiofsd::idmap::{GidMap, UidMap};
use virtiofsd::sandbox::SandboxMode;
use virtiofsd::soft_idmap;

/// Serves a directory or a file of this host to one box, over vhost-user; started by boxlite-shim.
#[derive(Debug, Parser)]
#[command(name = "boxlite-virtiofsd", version)]
pub(crate) struct Arguments {
    /// The inherited socket that listens for QEMU
    #[arg(long, value_name = "FD")]
    pub(crate) fd: RawFd,
    /// The directory to serve
    #[arg(long, value_name = "DIR", required_unless_present = "shared_file", conflicts_with = "shared_file")]
    pub(crate) shared_dir: Option<PathBuf>,
    /// The file to serve, as the only one in a directory
    #[arg(long, value_name = "FILE", requires = "file_fd")]
    pub(crate) shared_file: Option<PathBuf>,
    /// The inherited descriptor of the file that is meant
    #[arg(long, value_name = "FD")]
    pub(crate) file_fd: Option<RawFd>,
    /// How the daemon is kept to what it serves: namespace, chroot or none
    #[arg(long)]
    pub(crate) sandbox: SandboxMode,
    /// Refuse every change
    #[arg(long)]
    pub(crate) readonly: bool,
    /// `:inside:outside:1:` of the user namespace of a user who is not root
    #[arg(long)]
    pub(crate) uid_map: Vec<UidMap>,
    /// The same for groups
    #[arg(long)]
    pub(crate) gid_map: Vec<GidMap>,
    /// How user ids of the guest and the host become each other, as virtiofsd writes it
    #[arg(long)]
    pub(crate) translate_uid: Vec<soft_idmap::cmdline::IdMap>,
    /// The same for groups
    #[arg(long)]
    pub(crate) translate_gid: Vec<soft_idmap::cmdline::IdMap>,
    /// Bytes by which the guest may make the folder grow; no bound if missing
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u64>,
    /// The inherited descriptor of the file that keeps what is used of `--size`
    #[arg(long, value_name = "FD", requires = "size")]
    pub(crate) ledger: Option<RawFd>,
    /// Free bytes of the host's disk that the guest does not get
    #[arg(long, value_name = "BYTES")]
    pub(crate) hard_floor: u64,
    /// Free inodes of the host's disk that the guest does not get
    #[arg(long, value_name = "NUMBER")]
    pub(crate) inode_floor: u64,
}

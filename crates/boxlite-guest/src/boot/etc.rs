//! The host name, and the files in `/etc` that follow from it and from the network: `hostname`, `hosts`, `resolv.conf`.
//!
//! As in Docker, the files are mounted over those of the image, which never change. They are written to the initramfs and
//! their mounts are opened before the root is entered; the mounts are attached after that, when no symbolic link of the
//! image can lead out of the root.

use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use boxlite_proto::BootConfig;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

/// Symbolic links that are followed, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// The files' mounts, which are not attached yet.
pub(super) struct EtcFiles(Vec<(&'static str, OwnedFd)>);

/// Sets the host name and writes the files to the initramfs.
pub(super) fn prepare(config: &BootConfig) -> Result<EtcFiles, String> {
    rustix::system::sethostname(config.hostname.as_bytes())
        .map_err(|e| format!("setting the host name to {:?} failed: {e}", config.hostname))?;
    let mut files = vec![("/etc/hostname", format!("{}\n", config.hostname)), ("/etc/hosts", hosts(config))];
    if !config.dns_servers.is_empty() {
        files.push(("/etc/resolv.conf", resolv_conf(config)));
    }
    let mounts = files.into_iter().map(|(target, contents)| {
        let name = target.replace('/', "-");
        std::fs::write(format!("/{name}"), contents)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok((target, rustix::mount::open_tree(CWD, format!("/{name}"), flags)?))
    });
    let mounts: io::Result<Vec<_>> = mounts.collect();
    Ok(EtcFiles(mounts.map_err(|e| format!("preparing the files in /etc failed: {e}"))?))
}

impl EtcFiles {
    /// Mounts the files over the image's. Returns a warning for each that failed.
    pub(super) fn install(self) -> Vec<String> {
        let attach = |(target, mount): (&str, OwnedFd)| {
            let target_path = mount_point(Path::new(target))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
            rustix::mount::move_mount(mount.as_fd(), "", CWD, target_path, flags)?;
            Ok(())
        };
        self.0
            .into_iter()
            .filter_map(|(target, mount)| {
                attach((target, mount)).err().map(|e: io::Error| format!("providing {target} failed: {e}"))
            })
            .collect()
    }
}

/// Follows the symbolic links of a path to its end, where it creates an empty file if there is none.
fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                path = directory.join(std::fs::read_link(&path)?);
            }
            // An image may link it to /dev/null, which every program would find to be this file.
            Ok(metadata) if metadata.file_type().is_char_device() => {
                return Err(io::Error::other(format!("the image links it to the device {}", path.display())));
            }
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                std::fs::File::create_new(&path)?;
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn hosts(config: &BootConfig) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for entry in &config.extra_hosts {
        let _ = writeln!(text, "{}\t{}", entry.address, entry.name);
    }
    // Others of its networks reach the box under its addresses there.
    let own: Vec<Ipv4Addr> = match &config.network {
        None => vec![Ipv4Addr::new(127, 0, 1, 1)],
        Some(network) if network.members.is_empty() => vec![network.address],
        Some(network) => network.members.iter().map(|(address, _)| *address).collect(),
    };
    for address in own {
        let _ = writeln!(text, "{address}\t{}", config.hostname);
    }
    text
}

fn resolv_conf(config: &BootConfig) -> String {
    let mut text = String::new();
    for server in &config.dns_servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !config.dns_search.is_empty() {
        let _ = writeln!(text, "search {}", config.dns_search.join(" "));
    }
    text
}

//! The program as the shim starts it; what a guest sees of it is tested with boxes (`boxlite-cli/tests/cli/shared.rs`).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

/// Has it serve `path`, when the file that is meant is `meant`.
fn serve_file(path: &Path, meant: &File, sandbox: &str) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(scratch.path().join("socket")).unwrap();
    // QEMU hangs up at once, with which a daemon that serves ends well.
    drop(UnixStream::connect(scratch.path().join("socket")).unwrap());
    for descriptor in [listener.as_fd(), meant.as_fd()] {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxlite-virtiofsd"));
    command.arg(format!("--fd={}", listener.as_raw_fd()));
    command.arg("--shared-file").arg(path).arg(format!("--file-fd={}", meant.as_raw_fd()));
    command.args(["--sandbox", sandbox, "--hard-floor=0", "--inode-floor=0"]);
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        command.arg(format!("--uid-map=:0:{uid}:1:")).arg(format!("--gid-map=:0:{gid}:1:"));
    }
    command.output().unwrap()
}

/// What a box that writes above a file can do between the check and the daemon's own look at the path. Mutation tried: no
/// comparison.
#[test]
fn a_file_that_was_replaced_after_the_check_is_not_served() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, away) = (scratch.path().join("file"), scratch.path().join("away"));
    std::fs::write(&path, "meant").unwrap();
    let meant = File::open(&path).unwrap();
    std::fs::rename(&path, &away).unwrap();
    for replace in [
        |path: &Path| std::fs::write(path, "another").unwrap(),
        |path: &Path| {
            std::os::unix::fs::symlink("/etc/shadow", path).unwrap();
        },
    ] {
        replace(&path);
        let output = serve_file(&path, &meant, "namespace");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("was replaced"), "{said}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_is_served_from_namespaces_alone() {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    for sandbox in ["chroot", "none"] {
        let output = serve_file(scratch.path(), scratch.as_file(), sandbox);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("namespaces only"), "{said}");
    }
}

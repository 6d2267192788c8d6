use std::path::{Path, PathBuf};
use std::time::Duration;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline;
use boxlite_types::ErrorKind;

use super::super::{OffLimits, VolumeFloors};
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

fn shares(virtiofsd: &Path, sources: &[&Path]) -> Shares {
    let volume = |(n, source): (usize, &&Path)| super::super::Volume {
        source: source.to_path_buf(),
        target: format!("/{n}"),
        read_only: false,
        map_ids: false,
        file: false,
        size: None,
    };
    let volumes = sources.iter().enumerate().map(volume).collect();
    let off_limits = OffLimits { home: "/nonexistent".into(), assets: Vec::new() };
    let floors = VolumeFloors { bytes: 1 << 30, inodes: 2000 };
    Shares { volumes, virtiofsd: virtiofsd.into(), off_limits, floors, ledgers: "/nonexistent".into() }
}

fn no_spawn(_: Command, _: &[BorrowedFd<'_>]) -> io::Result<Child> {
    panic!("nothing is to be started")
}

/// Spawns less carefully than the shim: here an unrelated child may inherit the descriptors too.
fn spawn(mut command: Command, keep: &[BorrowedFd<'_>]) -> io::Result<Child> {
    for descriptor in keep {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
    }
    command.spawn()
}

fn virtiofsd() -> Option<PathBuf> {
    let assets = Assets::locate();
    let program = Assets::virtiofsd();
    assets.has(&[&program]).then_some(program)
}

/// The processes of a process group, zombies not counted.
fn members(group: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let in_group = |stat: &String| {
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[0] != "Z" && fields[2] == group.to_string()
    };
    stats.filter(in_group).count()
}

fn wait_for(what: &str, holds: impl FnMut() -> bool) {
    deadline::until(DEADLINE, what, holds);
}

#[test]
fn a_missing_virtiofsd_is_said_before_anything_starts() {
    let (tmp, absent) = (Path::new("/tmp"), Path::new("/nonexistent/virtiofsd"));
    let error = start(&shares(absent, &[tmp]), no_spawn).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nonexistent/virtiofsd"), "{error}");
    assert!(start(&shares(absent, &[]), no_spawn).unwrap().is_empty());
}

// Mutation tried: killing the child alone, not its group, still passes because virtiofsd's inner process follows its
// parent; killing nothing fails here.
#[test]
fn a_dropped_share_leaves_no_process() {
    let Some(program) = virtiofsd() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let started = start(&shares(&program, &[one.path(), two.path()]), spawn).unwrap();
    let groups: Vec<u32> = started.iter().map(|share| share.daemon.pid()).collect();
    for &group in &groups {
        wait_for("virtiofsd in its namespaces", || members(group) == 2);
    }
    let ends: Vec<OwnedFd> = started.into_iter().map(|share| share.device.descriptor).collect();
    for group in groups {
        wait_for("no process", || members(group) == 0);
    }
    drop(ends);
}

#[tokio::test]
async fn it_ends_by_itself_when_qemu_hangs_up_and_is_reported_when_it_dies() {
    let Some(program) = virtiofsd() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut started = start(&shares(&program, &[scratch.path(), scratch.path()]), spawn).unwrap();
    let (dies, hung_up) = (started.pop().unwrap(), started.pop().unwrap());

    let group = hung_up.daemon.pid();
    drop(hung_up.device.descriptor);
    tokio::time::timeout(DEADLINE, hung_up.daemon.watch()).await.expect("it ends").unwrap();
    wait_for("no process", || members(group) == 0);

    let group = dies.daemon.pid();
    wait_for("virtiofsd in its namespaces", || members(group) == 2);
    let pid = rustix::process::Pid::from_raw(group as i32).unwrap();
    rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    let error = tokio::time::timeout(DEADLINE, dies.daemon.watch()).await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("signal 9"), "{error}");
}

#[tokio::test]
async fn a_virtiofsd_that_fails_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let failing = |_: Command, _: &[BorrowedFd<'_>]| {
        Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]).stderr(Stdio::piped()).spawn()
    };
    let shares = shares(Path::new("/bin/true"), &[scratch.path()]);
    let share = start(&shares, failing).unwrap().pop().unwrap();
    let error = share.daemon.watch().await.unwrap_err();
    assert!(error.to_string().contains("exited with status 3: no such thing"), "{error}");
}

/// A box that writes above a volume can do this between the check and virtiofsd's own look at the path.
/// Mutation tried: `confirm` left out.
#[test]
fn a_directory_that_is_replaced_after_the_check_is_not_served() {
    let Some(program) = virtiofsd() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().canonicalize().unwrap();
    let (shared, secret) = (root.join("above/shared"), root.join("secret/shared"));
    for directory in [&shared, &secret] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let replacing = |command: Command, keep: &[BorrowedFd<'_>]| {
        std::fs::rename(root.join("above"), root.join("away")).unwrap();
        std::os::unix::fs::symlink(root.join("secret"), root.join("above")).unwrap();
        spawn(command, keep)
    };
    let error = start(&shares(&program, &[&shared]), replacing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("was replaced"), "{error}");
}

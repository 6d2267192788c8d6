//! A host as a node of a cluster: its verdict as an exit status, whatever becomes of its home's filesystem.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use boxlite_testkit::filesystem::SmallFilesystem;
use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, run};
use rustix::fs::FlockOperation;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::home::Home;

/// Checks the node with settings in the form of variables.
fn check(home: &Home, settings: &[(&str, &str)]) -> Output {
    let mut command = home.command(["node", "check", "--format", "json"]);
    Output::of(command.envs(settings.iter().copied()).spawn().expect("starting boxlite"))
}

/// What the check says, whatever its exit status.
fn verdict(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.text()).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_verdict_is_the_exit_status_and_the_figures_are_there() {
    let home = Home::bare();
    let nowhere = home.path().join("nowhere");
    let missing = home.run(&["--home", nowhere.to_str().unwrap(), "node", "check"]);
    assert!(missing.code() == Some(125) && !nowhere.exists(), "no home is made: {missing:?}");
    home.run(&["ls"]).ok();
    let lenient = [
        ("BOXLITE_HARD_FLOOR", "1m"),
        ("BOXLITE_SOFT_FLOOR", "2m"),
        ("BOXLITE_SOFT_PERCENT", "0"),
        ("BOXLITE_EMERGENCY_FLOOR", "1m"),
    ];
    let fine = check(&home, &lenient);
    assert_eq!(fine.code(), Some(0), "{fine:?}");
    let told = verdict(&fine);
    assert_eq!(told["verdict"], "ok");
    assert_eq!(told["reclaimable"]["bytes"], 0, "nothing is there to collect: {told}");
    let free = told["space"]["free"]["bytes"].as_u64().unwrap();
    assert!(
        free > 0 && told["space"]["claimed"] == 0 && told["memory"]["limit"].as_u64() > Some(0),
        "{told}"
    );

    let soft = (free * 2).to_string();
    let warned = check(&home, &[lenient[0], ("BOXLITE_SOFT_FLOOR", &soft), lenient[2], lenient[3]]);
    assert_eq!((warned.code(), verdict(&warned)["verdict"].as_str()), (Some(1), Some("warn")));
    let full = check(&home, &[("BOXLITE_HARD_FLOOR", &soft), ("BOXLITE_SOFT_FLOOR", &soft)]);
    assert_eq!(full.code(), Some(2));
    let reason = verdict(&full)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("starts need"), "{reason}");

    let gres = home.run(&["node", "gres", "--unit", "1g"]).ok();
    let count = gres
        .trim()
        .strip_prefix("Name=boxdisk Count=")
        .and_then(|rest| rest.strip_suffix(" Flags=CountOnly"));
    assert!(count.unwrap().parse::<u64>().is_ok(), "{gres}");
}

/// Before: a check opened the database first, was given up, and rejected the node.
#[test]
fn a_locked_database_costs_only_the_figure_that_needs_it() {
    let home = Home::bare();
    home.run(&["ls"]).ok();
    let database = File::options().read(true).write(true).open(home.path().join("boxlite.db")).unwrap();
    let lenient = [
        ("BOXLITE_HARD_FLOOR", "1m"),
        ("BOXLITE_SOFT_FLOOR", "2m"),
        ("BOXLITE_SOFT_PERCENT", "0"),
        ("BOXLITE_EMERGENCY_FLOOR", "1m"),
    ];
    rustix::fs::fcntl_lock(&database, FlockOperation::LockExclusive).unwrap();
    let locked = check(&home, &lenient);
    let told = verdict(&locked);
    assert_eq!((locked.code(), told["verdict"].as_str()), (Some(0), Some("ok")), "{told}");
    assert!(told["reclaimable"].is_null() && !told["space"].is_null(), "{told}");
    drop(database);
    assert_eq!(verdict(&check(&home, &lenient))["reclaimable"]["bytes"], 0);
}

/// A filesystem whose writers wait and cannot even be killed, until this is dropped.
struct FrozenFilesystem<'a>(&'a Path);

impl<'a> FrozenFilesystem<'a> {
    fn freeze(place: &'a Path) -> Self {
        run(Command::new("fsfreeze").arg("--freeze").arg(place));
        Self(place)
    }
}

impl Drop for FrozenFilesystem<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(self.0).status();
    }
}

#[test]
fn a_process_that_cannot_be_killed_is_given_up_too() {
    if !oracle::require_root("freezing a filesystem") || !oracle::require("fsfreeze") {
        return;
    }
    let home = Home::bare();
    let Some(disk) = SmallFilesystem::ext4(256 << 20, &[]) else { return };
    let path = disk.path().join("home");
    let check = ["--home", path.to_str().unwrap(), "node", "check", "--timeout", "1s", "--format", "json"];
    home.run(&["--home", path.to_str().unwrap(), "ls"]).ok();
    assert_eq!(verdict(&home.run(&check))["verdict"], "reject", "256 MiB are too few");
    let frozen = FrozenFilesystem::freeze(disk.path());
    let output = Output::within(home.start(&check), Duration::from_secs(60));
    drop(frozen);
    let told = verdict(&output);
    assert_eq!((output.code(), told["verdict"].as_str()), (Some(2), Some("reject")), "{told}");
    // The process that was given up ends now that it can, and the filesystem is free again.
    until(TEST_TIMEOUT, "the node to be measured", || !verdict(&home.run(&check))["space"].is_null());
}

/// A filesystem that answers nothing: nobody serves it.
struct StuckFilesystem {
    place: PathBuf,
    _device: File,
}

impl StuckFilesystem {
    fn mount(place: &Path) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("stuck", place, "fuse", MountFlags::empty(), options.as_c_str()).unwrap();
        Self { place: place.to_owned(), _device: device }
    }
}

impl Drop for StuckFilesystem {
    fn drop(&mut self) {
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

/// A check that opens the home in its own process hangs here.
#[test]
fn a_filesystem_that_does_not_answer_is_given_up_and_rejected() {
    if !oracle::require_root("mounting a filesystem") {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        oracle::skip("this kernel has no FUSE");
        return;
    }
    let home = Home::bare();
    let place = home.path().join("stuck");
    std::fs::create_dir(&place).unwrap();
    let stuck = StuckFilesystem::mount(&place);
    let began = Instant::now();
    let path = place.join("home");
    let arguments =
        ["--home", path.to_str().unwrap(), "node", "check", "--timeout", "1s", "--format", "json"];
    let output = Output::within(home.start(&arguments), Duration::from_secs(60));
    assert_eq!(output.code(), Some(2), "{output:?} after {:?}", began.elapsed());
    let told = verdict(&output);
    assert_eq!((told["verdict"].as_str(), told["space"].is_null()), (Some("reject"), true), "{told}");
    assert!(told["reason"].as_str().unwrap().contains("does not answer"), "{told}");
    assert_eq!(told["home"], path.to_str().unwrap());
    drop(stuck);
}

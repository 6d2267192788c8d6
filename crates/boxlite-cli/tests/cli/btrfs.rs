//! A filesystem that never overwrites in place, full to the last byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::oracle;

use crate::home::{Home, program};

/// A btrfs on a loop device, gone at the end; none where it cannot be made.
struct Btrfs {
    directory: tempfile::TempDir,
}

impl Btrfs {
    fn new(options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let disk = Self { directory };
        let (image, mount) = (disk.directory.path().join("image"), disk.path());
        fs::create_dir(&mount).unwrap();
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.btrfs").arg("-q").args(options).arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        if !made {
            oracle::skip_even_in_ci("no btrfs can be made and mounted here");
        }
        made.then_some(disk)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}

/// Writes until nothing fits any more, down to single files of a few bytes.
fn fill(directory: &Path) {
    let mut count = 0;
    for size in [1 << 20, 64 << 10, 4 << 10, 1 << 10] {
        let chunk = vec![0x5a; size];
        loop {
            count += 1;
            let Ok(mut file) = File::create(directory.join(format!("fill-{count}"))) else { break };
            if file.write_all(&chunk).and_then(|()| file.sync_all()).is_err() {
                break;
            }
        }
    }
}

/// `rm`, `rm -f` and `rmi` failed: "database or disk is full". Mutation tried: a
/// reserve that is made empty instead of unlinked, which a full btrfs refuses.
#[test]
fn what_frees_space_works_on_a_full_btrfs() {
    let Some(assets) = Assets::require() else { return };
    for options in [&["-M"][..], &[]] {
        let Some(disk) = Btrfs::new(options) else { return };
        let home = disk.path().join("home");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(program());
            command.arg("--home").arg(&home).args(arguments).env("BOXLITE_ASSETS", assets.directory());
            for (name, value) in [
                ("HARD_FLOOR", "4MiB"),
                ("SOFT_FLOOR", "4MiB"),
                ("EMERGENCY_FLOOR", "1MiB"),
                ("INODE_FLOOR", "0"),
                ("GRACE", "0s"),
                ("CLAIM", "0"),
            ] {
                command.env(format!("BOXLITE_{name}"), value);
            }
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{options:?}: {arguments:?}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let image = assets.reference("mini");
        for name in ["one", "two", "three"] {
            run(&["create", "--name", name, &image, "true"]);
        }
        fill(&disk.path());
        run(&["rm", "one"]);
        fill(&disk.path());
        run(&["rm", "-f", "two", "three"]);
        run(&["rmi", &image]);
        run(&["gc"]);
        assert_eq!(fs::read_dir(home.join("boxes")).unwrap().count(), 0);
    }
    // The home of the other tests has the same reserve.
    let ordinary = Home::bare();
    ordinary.run(&["ls"]).ok();
    assert!(ordinary.path().join("reserve-database").metadata().is_ok_and(|found| found.len() == 2 << 20));
}

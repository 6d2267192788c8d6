//! Hosts and homes where no box can be, or that are damaged: what is refused is refused in words that help.

use std::fs;
use std::process::Command;

use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, hinted};

use crate::home::Home;

#[test]
fn a_host_without_qemu_or_kernel_says_what_to_install() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "web", &home.image("mini"), "true"]).ok();
    let nothing = tempfile::tempdir().unwrap();
    let without = |name: &str| {
        let mut command = home.command(["start", "web"]);
        match name {
            "qemu" => command.env("PATH", nothing.path()),
            _ => command.env("BOXLITE_ASSETS", nothing.path()),
        };
        Output::of(command.spawn().unwrap())
    };
    hinted(&without("qemu").refused("QEMU"));
    hinted(&without("kernel").refused("scripts/setup"));
    // Nothing is fetched for a box that could not run. Without the look, the registry is named instead.
    let mut fetching = home.command(["create", "127.0.0.1:1/nobody/listens:latest"]);
    let fetching = Output::of(fetching.env("BOXLITE_ASSETS", nothing.path()).spawn().unwrap());
    hinted(&fetching.refused("scripts/setup"));
    let info = home.run(&["inspect", "web"]).json();
    assert_eq!(info[0]["state"], "created", "a start that never was changes nothing: {info}");
}

#[test]
fn emulation_is_said_once_and_refused_on_demand() {
    let Some(home) = Home::able() else { return };
    let info = home.run(&["info", "--format", "json"]).json();
    if info["acceleration"]["name"] != "tcg" {
        return;
    }
    let start = ["run", "--rm", &home.image("mini"), "true"];
    let first = home.run(&start);
    assert!(
        first.err.contains("boxlite: warning: boxes are emulated")
            && first.err.contains("KVM is not usable: "),
        "{}",
        first.err
    );
    assert_eq!(home.run(&start).err, "");
    let child = home.command(start).env("BOXLITE_REQUIRE_KVM", "true").spawn().unwrap();
    let refusal = Output::of(child).refused("require_kvm = true (BOXLITE_REQUIRE_KVM)");
    assert!(refusal.contains("KVM is not usable: "), "{refusal}");
}

/// Without the look, the box is made.
#[test]
fn a_directory_that_this_user_may_not_read_is_no_volume() {
    let Some(assets) = boxlite_testkit::assets::Assets::require() else { return };
    if !rustix::process::geteuid().is_root() {
        oracle::skip("becoming another user needs root");
        return;
    }
    let scratch = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let (hidden, own) = (scratch.path().join("hidden"), scratch.path().join("home"));
    for directory in [&hidden, &own] {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    let image = assets.reference("mini");
    let mut command = Command::new("setpriv");
    command.args("--reuid 65534 --regid 65534 --clear-groups".split(' ')).arg(crate::home::program());
    command.args(["create", "-v", &format!("{}:/x", hidden.display()), &image]).env("BOXLITE_HOME", &own);
    let output = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let refused = Output::of(output.spawn().unwrap()).refused("this user may not read");
    assert!(refused.contains("hint: share a directory that this user may read"), "{refused}");
}

#[test]
fn a_home_where_none_can_be_is_refused() {
    let home = Home::bare();
    let file = home.path().join("file");
    fs::write(&file, "mine").unwrap();
    home.run(&["--home", file.to_str().unwrap(), "ls"]).refused("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    home.run(&["--home", "", "ls"]).refused("home");
    home.run(&["--home", "/proc/boxlite", "ls"]).refused("/proc/boxlite");
    home.run(&["--accel", "magic", "ls"]).refused("");
    fs::write(home.path().join("config.toml"), "hard_floor = \"lots\"\n").unwrap();
    home.run(&["ls"]).refused("config.toml");
    fs::remove_file(home.path().join("config.toml")).unwrap();
}

#[test]
fn a_read_only_home_is_refused_in_words() {
    let home = Home::bare();
    let point = home.path().join("point");
    fs::create_dir(&point).unwrap();
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(&point).status();
    let mounted = mount(&["-t", "tmpfs", "-o", "ro", "tmpfs"]).is_ok_and(|status| status.success());
    if !mounted {
        oracle::skip("mounting a read-only tmpfs needs root");
        return;
    }
    let output = home.run(&["--home", point.join("home").to_str().unwrap(), "ls"]);
    assert!(Command::new("umount").arg("-l").arg(&point).status().unwrap().success());
    hinted(&output.refused("Read-only"));
}

/// Mutation tried: failing with the first record that cannot be read; `ls` and `gc` did.
#[test]
fn one_damaged_record_hides_no_other_box_and_frees_nothing() {
    let Some(home) = Home::able() else { return };
    let mini = home.image("mini");
    let create = |name| home.run(&["create", "--name", name, &mini, "echo", name]).ok().trim().to_owned();
    let (bad, _good) = (create("bad"), create("good"));
    // A flipped byte in the record itself: the database keeps no checksum of it.
    let database = home.path().join("boxlite.db");
    let mut bytes = fs::read(&database).unwrap();
    let record = format!("{{\"id\":\"{bad}\"").into_bytes();
    let at = bytes.windows(record.len()).position(|window| window == record).expect("the record");
    bytes[at] = b'!';
    fs::write(&database, bytes).unwrap();

    let listed = home.run(&["ls", "-a", "--no-trunc"]);
    assert_eq!(listed.code(), Some(0), "{listed:?}");
    let listed = listed.text();
    assert!(listed.contains(&bad) && listed.contains("good"), "{listed}");
    let refused = home.run(&["start", "bad"]).refused(&bad);
    assert!(refused.contains("boxlite rm -f"), "{refused}");
    assert_eq!(home.run(&["start", "-a", "good"]).ok(), "good\n");
    let images = || fs::read_dir(home.path().join("images/disk-images")).unwrap().count();
    let before = images();
    let gc = home.command(["gc"]).env("BOXLITE_GRACE", "0").spawn().unwrap();
    assert_eq!(Output::of(gc).code(), Some(0));
    assert_eq!((images(), home.path().join("boxes").join(&bad).exists()), (before, true));
    home.run(&["info"]).ok();

    home.run(&["rm", "-f", &bad[..12]]).ok();
    assert!(!home.path().join("boxes").join(&bad).exists());
    assert_eq!(home.run(&["ls", "-aq", "--no-trunc"]).ok().lines().count(), 1);
}

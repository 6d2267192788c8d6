//! Hosts and homes where no box can be: each case is refused in words that help, and changes nothing.

use std::fs;
use std::process::Command;

use crate::home::Home;
use crate::output::{Output, hinted};

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
    let info = home.run(&["inspect", "web"]).json();
    assert_eq!(info[0]["state"], "created", "a start that never was changes nothing: {info}");
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
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a tmpfs could not be mounted");
        println!("SKIPPED: mounting a read-only tmpfs needs root");
        return;
    }
    let output = home.run(&["--home", point.join("home").to_str().unwrap(), "ls"]);
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    hinted(&output.refused("Read-only"));
}

use std::process::{Command, Stdio};

use super::*;

/// Oracle: bsdtar or cpio, where this machine has one. Mutation tried: padding to 2 instead of 4 bytes.
#[test]
fn a_foreign_program_lists_the_archive() {
    let mut archive = Archive::new();
    archive.directory("dev", 0o755);
    archive.file("init", 0o755, b"seven b");
    archive.file("odd-name", 0o644, &[7; 4097]);
    let bytes = archive.finish();
    if !boxlite_testkit::oracle::require("busybox") {
        return;
    }
    let mut child = Command::new("busybox")
        .args(["cpio", "-tv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["dev", "init", "odd-name"], "{text}");
    assert!(text.contains("4097"), "{text}");
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let make = || {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"x");
        archive.finish()
    };
    assert_eq!(make(), make());
    assert_eq!(make().len() % 4, 0);
}

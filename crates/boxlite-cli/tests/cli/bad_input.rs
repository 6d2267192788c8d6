//! Failures before a virtual machine is needed: each case is refused in words that help, and changes nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use boxlite_testkit::program::hinted;

use crate::home::Home;

/// Names, lengths and times of everything in the home but the database, whose pages may be touched by a reader.
fn contents(directory: &Path) -> Vec<String> {
    let output = Command::new("find")
        .arg(directory)
        .args(["-not", "-name", "boxlite.db*", "-printf", "%P %y %s\n"])
        .output()
        .expect("find");
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn malformed_and_unknown_names_are_refused() {
    let home = Home::bare();
    home.run(&["ls"]).ok();
    // What a look at the host leaves is there, too, which a server takes by itself.
    let _ = home.run(&["info"]);
    let before = contents(home.path());
    for malformed in ["", "UPPER/case", "a b", "x@sha256:12", "-x"] {
        let output = home.run(&["run", "--", malformed]);
        assert_eq!(output.code(), Some(125), "{malformed:?}: {output:?}");
        assert!(output.err.starts_with("boxlite: ") && !output.err.contains("panicked"), "{output:?}");
    }
    hinted(&home.run(&["run", "--pull", "never", "nothing-here:1", "true"]).refused("nothing-here"));
    hinted(&home.run(&["run", "oci:/no/such/layout", "true"]).refused("/no/such/layout"));
    hinted(&home.run(&["pull", "127.0.0.1:1/nobody/listens:latest"]).refused("127.0.0.1:1"));
    for command in ["start", "stop", "rm", "inspect", "kill", "logs", "attach", "wait", "restart"] {
        hinted(&home.run(&[command, "nobody"]).refused("nobody"));
    }
    hinted(&home.run(&["exec", "nobody", "true"]).refused("nobody"));
    home.run(&["rmi", "nothing-here"]).refused("nothing-here");
    assert_eq!(contents(home.path()), before, "nothing is left half-made");
}

#[test]
fn unknown_options_end_with_boxlite_s_own_status() {
    let home = Home::bare();
    for line in [&["run", "--nope", "x"][..], &["frobnicate"], &["run"], &["ls", "--format", "xml"]] {
        home.run(line).refused("--help");
    }
    let bare = home.run(&[]);
    assert!(bare.code() == Some(125) && bare.err.contains("Usage: boxlite"), "{bare:?}");
    assert!(home.run(&["run", "--help"]).ok().contains("IMAGE [COMMAND]"));
    assert!(home.run(&["--version"]).ok().starts_with("boxlite "));
    assert!(home.run(&["completion", "bash"]).ok().contains("_boxlite"));
}

/// Mutation tried: no table of other tools' commands.
#[test]
fn commands_of_other_tools_are_answered_with_what_to_use() {
    let home = Home::bare();
    for (command, instead) in [("search", "registry"), ("build", "buildah"), ("manifest", "skopeo")] {
        let output = home.run(&[command, "--all", "x"]);
        let error = output.refused(instead);
        assert!(
            error.contains(&format!("boxlite has no `{command}`")) && !error.contains("similar"),
            "{error}"
        );
    }
    // Docker's would ask nothing, and ours would end what runs.
    home.run(&["container", "prune", "-f"]).refused("boxlite rm --all");
    let prune = home.run(&["image", "prune", "-a"]).refused("boxlite gc --all");
    assert!(prune.contains("boxlite has no `image prune`"), "{prune}");
    assert_eq!(home.run(&["help", "ps"]).ok(), home.run(&["ls", "--help"]).ok());
    for (option, instead) in [
        ("--gpus=all", "--nested"),
        ("--link", "network create"),
        ("--device", "--nested"),
        ("--pid", "kernel of its own"),
    ] {
        let error = home.run(&["run", option, "x"]).refused(instead);
        assert!(error.contains("boxlite has no `--") && !error.contains("similar"), "{error}");
    }
    home.run(&["login", "-u", "me", "-p", "secret", "localhost:1"]).refused("--password-stdin");
    let platform = home.run(&["run", "--platform", "linux/s390x", "alpine"]).refused("linux/s390x");
    assert!(platform.contains("the host's own processors"), "{platform}");
}

#[test]
fn a_wrong_digest_is_refused_and_leaves_no_image() {
    let Some(home) = Home::able() else { return };
    let copy = tempfile::tempdir().unwrap();
    let status =
        Command::new("cp").args(["-r", "-L"]).arg(home.layout()).arg(copy.path().join("layout")).status();
    assert!(status.unwrap().success());
    let blobs = copy.path().join("layout/blobs/sha256");
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    let largest =
        fs::read_dir(blobs).unwrap().flatten().map(|entry| entry.path()).max_by_key(|path| length(path));
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let image = format!("oci:{}:python", copy.path().join("layout").display());
    hinted(&home.run(&["run", &image, "true"]).refused("sha256:"));
    assert_eq!(home.run(&["images", "-q"]).ok(), "");
    assert_eq!(fs::read_dir(home.path().join("images/tmp")).unwrap().count(), 0);
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

#[test]
fn a_name_is_taken_once() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--name", "web", &image]).ok();
    hinted(&home.run(&["create", "--name", "web", &image]).refused("web"));
    home.run(&["create", "--name=bad name", &image]).refused("name");
    home.run(&["create", "-v", "/no/such/dir:/x", &image]).refused("/no/such/dir");
    home.run(&["create", "-p", "99999:1", &image]).refused("99999");
    home.run(&["create", "-m", "1", &image]).refused("memory");
    assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 1);
}

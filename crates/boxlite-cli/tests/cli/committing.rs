//! `diff`, `commit`, `export` and `import`: umoci, skopeo and GNU tar say whether what they make is right.

use std::path::Path;
use std::process::Command;

use boxlite_testkit::oracle;

use crate::home::Home;

/// Everything that a layer can hold, over an image that has some of it.
const CHANGES: &str = r"
    cd /; mkdir -p srv/d; echo new > srv/d/new; ln srv/d/new srv/d/hard; ln -s ../d/new srv/d/sym
    mkfifo srv/d/fifo; mknod srv/d/dev c 5 6; chmod 4755 usr/bin/grep; rm usr/bin/find
    touch -d '2001-02-03 04:05:06.123456789' srv/d/old; touch -d '1960-01-01 00:00:00.25' srv/d/older
    truncate -s 5M srv/d/sparse; echo tail >> srv/d/sparse; chown 70000:3000000 srv/d/old
    n=$(printf '%0120d' 1); mkdir -p srv/$n/$n; echo long > srv/$n/$n/f; ln -s $n/$n/f srv/long
    printf x > srv/d/$(printf '\xff\xfe')
    rm etc/debian_version; mkdir etc/debian_version; echo in > etc/debian_version/in
    rm -r usr/share/base-files; echo file > usr/share/base-files
    rm -r usr/lib/os-release; echo mine > usr/lib/os-release
    mv etc/skel etc/moved 2>/dev/null; echo hi > /etc/hosts; echo memory > /dev/shm/x
";

const EXPECTED: [&str; 14] = [
    "A /srv/d",
    "A /srv/d/dev",
    "A /srv/d/fifo",
    "A /srv/d/hard",
    "A /srv/d/old",
    "C /etc",
    "C /etc/debian_version",
    "A /etc/debian_version/in",
    "C /usr",
    "C /usr/bin",
    "D /usr/bin/find",
    "C /usr/bin/grep",
    "C /usr/lib/os-release",
    "C /usr/share/base-files",
];

/// What each file below `root` is, a line each; without what the guest's agent makes for its mounts.
fn listing(root: &Path) -> Vec<String> {
    let script = r#"find . -printf '%P|%y|%m|%U|%G|%T@|%l|%n|%s\n' | while IFS= read -r line; do
        case $line in *'|d|'*) echo "${line%|*|*}";; *) echo "$line";; esac; done; find . -type f -exec sha256sum {} +"#;
    let output = Command::new("bash").args(["-c", script]).current_dir(root).output().unwrap();
    assert!(output.status.success());
    let mounted =
        ["etc/hosts", "etc/hostname", "etc/resolv.conf", "proc", "sys", "dev", "tmp", "usr/lib/modules"];
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The root, and directories that the agent may touch, have times of their own.
    let kept = text.lines().filter(|line| {
        let is_mount = mounted
            .iter()
            .any(|name| line.starts_with(&format!("{name}|")) || line.ends_with(&format!("  ./{name}")));
        !is_mount
            && !line.starts_with("|d|")
            && !line.starts_with("etc|d|")
            && !line.starts_with("usr/lib|d|")
    });
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn unpack(archive: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(archive).arg("-C").arg(to);
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn assert_same(one: &[String], other: &[String], what: &str) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).take(10).cloned().collect()
    };
    let (missing, more) = (only(one, other), only(other, one));
    assert!(missing.is_empty() && more.is_empty(), "{what}: {missing:#?}\nbut {more:#?}");
}

#[test]
fn a_committed_image_has_what_the_box_had_and_runs() {
    if !oracle::require_root("unpacking devices and owners")
        || !oracle::require("umoci")
        || !oracle::require("skopeo")
    {
        return;
    }
    let Some(home) = Home::able() else { return };
    home.sleeper("origin");
    assert_eq!(home.run(&["diff", "origin"]).ok(), "", "a box that has done nothing has changed nothing");
    home.run(&["exec", "origin", "bash", "-c", CHANGES]).ok();
    let diff = home.run(&["diff", "origin"]).ok();
    let lines: Vec<&str> = diff.lines().collect();
    for expected in EXPECTED {
        assert!(lines.contains(&expected), "{expected} is missing:\n{diff}");
    }
    let is_mounted = |line: &&str| line[2..].starts_with("/dev") || line[2..].starts_with("/etc/hosts");
    assert!(!lines.iter().any(is_mounted), "what is mounted belongs to no image:\n{diff}");

    let change = ["-c", "CMD [\"cat\", \"/srv/d/new\"]", "-c", "ENV A=5", "-c", "LABEL l=\"two words\""];
    let commit = |name: &str| {
        let arguments =
            [&["commit", "-q", "-m", "my message", "-a", "me"], &change[..], &["origin", name]].concat();
        home.run(&arguments).ok().trim().to_owned()
    };
    let digest = commit("made:1");
    assert_eq!(home.run(&["run", "--rm", "made:1"]).ok(), "new\n");
    let history =
        home.run(&["history", "--format", "{{.Comment}}|{{.Author}}|{{.CreatedBy}}", "made:1"]).ok();
    assert_eq!(history.lines().next(), Some("my message|me|boxlite commit"));
    assert!(home.run(&["inspect", "made:1"]).ok().contains(&digest));

    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    // The box itself, by GNU tar.
    home.run(&["export", "-o", &text("origin.tar"), "origin"]).ok();
    unpack(&at("origin.tar"), &at("origin"));
    let original = listing(&at("origin"));
    assert!(original.len() > 300, "{}", original.len());
    // The image, by umoci.
    home.run(&["save", "--format", "oci-archive", "-o", &text("made.tar"), "made:1"]).ok();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let layout = format!("oci:{}:v1", text("layout"));
    run(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &format!("oci-archive:{}", text("made.tar")), &layout],
    );
    run("umoci", &["unpack", "--image", &format!("{}:v1", text("layout")), &text("bundle")]);
    assert_same(&original, &listing(&at("bundle/rootfs")), "umoci's rootfs");
    // A box of it, which was never started.
    home.run(&["create", "--name", "copy", "made:1"]).ok();
    home.run(&["export", "-o", &text("copy.tar"), "copy"]).ok();
    unpack(&at("copy.tar"), &at("copy"));
    assert_same(&original, &listing(&at("copy")), "a box of the image");
    assert_eq!(home.run(&["diff", "copy"]).ok(), "");

    // The same of the stopped box.
    home.run(&["stop", "-t", "1", "origin"]).ok();
    assert_eq!(home.run(&["diff", "origin"]).ok(), diff);
    commit("made:2");
    let layers = |name: &str| home.run(&["inspect", "--format", "{{json .layers}}", name]).ok();
    assert_eq!(layers("made:2"), layers("made:1"), "the same files give the same layer");

    // The exported archive makes an image, too.
    home.run(&["import", "-c", "CMD [\"cat\", \"/srv/d/hard\"]", &text("origin.tar"), "flat:1"]).ok();
    assert_eq!(home.run(&["run", "--rm", "flat:1"]).ok(), "new\n");
    home.run(&["create", "--name", "flat", "flat:1"]).ok();
    home.run(&["export", "-o", &text("flat.tar"), "flat"]).ok();
    unpack(&at("flat.tar"), &at("flat"));
    assert_same(&original, &listing(&at("flat")), "a box of the imported image");
}

#[test]
fn what_cannot_be_committed_or_imported_leaves_nothing() {
    let Some(home) = Home::able() else { return };
    home.sleeper("origin");
    home.run(&["commit", "-c", "RUN true", "origin", "made:1"]).refused("CMD");
    home.run(&["commit", "origin", "oci:/tmp/x"]).refused("names files");
    home.run(&["commit", "absent", "made:1"]).refused("absent");
    home.run(&["diff", "absent"]).refused("absent");
    home.run(&["export", "absent"]).refused("absent");
    home.run(&["exec", "origin", "touch", "/.wh.bin"]).ok();
    home.run(&["commit", "origin", "made:1"]).refused("/.wh.bin");
    home.run(&["import", "/nonexistent", "made:1"]).refused("nonexistent");
    for garbage in [&b"no archive"[..], &[0x1f, 0x8b, 8, 0], &[7; 4096]] {
        assert_eq!(home.run_with(&["import", "-", "made:1"], garbage.to_vec()).code(), Some(125));
    }
    let images = home.run(&["images"]).ok();
    assert!(!images.contains("made:1"), "{images}");
    assert_eq!(std::fs::read_dir(home.path().join("images/tmp")).unwrap().count(), 0);
    // GNU tar leaves holes out, and the archive is shorter than its files.
    let scratch = tempfile::tempdir().unwrap();
    let (file, archive) = (scratch.path().join("holes"), scratch.path().join("holes.tar"));
    std::fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
    std::fs::write(scratch.path().join("after"), "x").unwrap();
    let tar = Command::new("tar")
        .arg("-C")
        .arg(scratch.path())
        .arg("-cSf")
        .arg(&archive)
        .args(["holes", "after"])
        .status();
    assert!(tar.unwrap().success() && std::fs::metadata(&archive).unwrap().len() < 1 << 20);
    home.run(&["import", archive.to_str().unwrap(), "holes:1"]).ok();
    // A box that has changed nothing becomes an image without a layer of its own.
    home.run(&["exec", "origin", "rm", "/.wh.bin"]).ok();
    home.run(&["commit", "-m", "nothing", "origin", "made:1"]).ok();
    let history = home.run(&["history", "--format", "{{.Size}} {{.Comment}}", "made:1"]).ok();
    assert_eq!(history.lines().next(), Some("0 nothing"));
}

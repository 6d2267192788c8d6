//! Boxes whose images share layers: a disk image, and deltas over it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::disks::overlay;
use crate::home::Home;

fn names(home: &Home, directory: &str) -> Vec<String> {
    let path = home.path().join("images").join(directory);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// How many files the chain has by QEMU's own account, each of which it finds sound.
fn depth(overlay: &PathBuf) -> usize {
    let command = ["info", "-U", "--backing-chain", "--output=json"];
    let listed = Command::new("qemu-img").args(command).arg(overlay).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    listed.as_array().unwrap().len()
}

/// The images `mini` and `app` differ by one small layer.
#[test]
fn a_box_runs_on_a_chain_of_deltas_and_so_does_its_clone() {
    let Some(home) = Home::able() else { return };
    fs::write(home.path().join("config.toml"), "disk_size = \"128MiB\"\ngrace = \"0s\"\n").unwrap();
    let (mini, app) = (home.image("mini"), home.image("app"));
    home.run(&["run", "--name", "plain", &mini, "true"]).ok();
    assert_eq!((names(&home, "disk-images").len(), names(&home, "deltas").len()), (1, 0));
    let script = "id -un 1000; echo first >>/root/diary; cat /root/diary";
    let run = |name: &str| {
        home.run(&["run", "--user", "root", "--entrypoint", "sh", "--name", name, &app, "-c", script]).ok()
    };
    assert_eq!(run("first"), "box\nfirst\n", "the user of the upper layer is there");
    assert_eq!((names(&home, "disk-images").len(), names(&home, "deltas").len()), (1, 1));
    let delta = home.path().join("images/deltas").join(&names(&home, "deltas")[0]);
    let small = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&delta).unwrap()) * 512;
    assert!(small < 400_000, "a layer of 10 kB costs {small} bytes");
    assert_eq!(depth(&overlay(&home, "first")), 3, "overlay, delta, disk image");

    // A second run, a clone, and one more box of the image: all of them over the same delta.
    home.run(&["clone", "--name", "copy", "first"]).ok();
    assert_eq!(depth(&overlay(&home, "copy")), 4, "overlay, base, delta, disk image");
    assert_eq!(home.run(&["start", "-a", "copy"]).text(), "box\nfirst\nfirst\n");
    assert_eq!(home.run(&["start", "-a", "first"]).text(), "box\nfirst\nfirst\n");
    assert_eq!(run("second"), "box\nfirst\n");
    home.run(&["clone", "--name", "pristine", "second"]).ok();

    // gc keeps the chain while one box stands on it, and takes all of it afterwards.
    for name in ["plain", "first", "copy", "second"] {
        home.run(&["rm", name]).ok();
    }
    home.run(&["gc"]).ok();
    assert_eq!((names(&home, "disk-images").len(), names(&home, "deltas").len()), (1, 1));
    assert_eq!(home.run(&["start", "-a", "pristine"]).text(), "box\nfirst\nfirst\n");
    let usage = home.run(&["system", "df", "--format", "json"]).json();
    assert_eq!(usage["deltas"]["count"], 1, "{usage}");

    // A file of the chain that was lost is made again as it was.
    let before = fs::read(&delta).unwrap();
    fs::remove_file(&delta).unwrap();
    assert_eq!(home.run(&["start", "-a", "pristine"]).text(), "box\nfirst\nfirst\nfirst\n");
    assert!(fs::read(&delta).unwrap() == before);
    home.run(&["rm", "pristine"]).ok();
    home.run(&["gc"]).ok();
    assert_eq!((names(&home, "disk-images").len(), names(&home, "deltas").len()), (0, 0));
}

//! `gc`, `system df` and `info` of a home with one box.

use std::fs;

use crate::home::Home;

#[test]
fn what_a_box_needs_is_kept_and_goes_after_it() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "--name", "one", &image, "true"]).ok();
    let grown = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("BOXLITE_GRACE", "0s");
        boxlite_testkit::program::Output::of(command.spawn().unwrap())
    };
    let kept = grown(&["gc", "--format", "json"]).json();
    assert_eq!(kept["reclaimed"], 0, "{kept}");
    assert_eq!(kept["disk_images"][0]["fate"], "kept", "{kept}");
    let words = grown(&["gc"]).ok().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("kept box "), "{words}");

    let usage = home.run(&["system", "df", "--format", "json"]).json();
    assert_eq!(
        (&usage["disk_images"]["count"], &usage["overlays"]["count"]),
        (&1.into(), &1.into()),
        "{usage}"
    );
    assert!(home.run(&["system", "df", "-v"]).ok().contains("BOX ID"));

    home.run(&["rm", "one"]).ok();
    home.run(&["rmi", &image]).ok();
    let young = home.run(&["gc", "--format", "json"]).json();
    assert_eq!(young["disk_images"][0]["fate"], "skipped", "{young}");
    let dry = grown(&["gc", "--dry-run", "--format", "json"]).json();
    let wet = grown(&["gc", "--format", "json"]).json();
    assert!(dry["reclaimed"].as_u64().unwrap() > 1 << 20, "{dry}");
    assert_eq!(dry["reclaimed"], wet["reclaimed"], "a dry run foretells the bytes");
    let left = |directory: &str| fs::read_dir(home.path().join(directory)).unwrap().count();
    assert_eq!((left("images/disk-images"), left("images/blobs/sha256")), (0, 0));
    assert_eq!(grown(&["gc", "--format", "json"]).json()["reclaimed"], 0, "a second pass finds nothing");
}

#[test]
fn an_image_that_was_loaded_goes_only_when_that_is_said() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["pull", &image]).ok();
    home.run(&["tag", &image, "mine:1"]).ok();
    let archive = home.path().join("mine.tar").display().to_string();
    home.run(&["save", "-o", &archive, "mine:1"]).ok();
    home.run(&["rmi", "-f", &image]).ok();
    home.run(&["rmi", "-f", "mine:1"]);
    home.run(&["load", "-i", &archive]).ok();
    let gc = |arguments: &[&str]| {
        let mut command = home.command([&["gc"], arguments].concat());
        command.env("BOXLITE_GRACE", "0s");
        boxlite_testkit::program::Output::of(command.spawn().unwrap()).ok()
    };
    let kept = gc(&["--all"]);
    assert!(kept.contains("no registry can give it back"), "{kept}");
    assert_eq!(home.run(&["images", "-q"]).ok().lines().count(), 1);
    gc(&["--all", "--local"]);
    assert_eq!(home.run(&["images", "-q"]).ok(), "");
    home.run(&["gc", "--local"]).refused("--all");
}

#[test]
fn the_host_is_described_and_what_is_missing_is_an_exit_status() {
    let Some(home) = Home::able() else { return };
    let info = home.run(&["info", "--format", "json"]).json();
    assert!(["kvm", "tcg"].contains(&info["acceleration"]["name"].as_str().unwrap()), "{info}");
    assert!(info["space"]["free"]["bytes"].as_u64().unwrap() > 0, "{info}");
    let mut command = home.command(["doctor"]);
    command.env("BOXLITE_ASSETS", home.path()).env("BOXLITE_HARD_FLOOR", "2GiB");
    let lacking = boxlite_testkit::program::Output::of(command.spawn().unwrap());
    assert_eq!(lacking.code(), Some(1), "{lacking:?}");
    let text = lacking.text();
    assert!(text.contains("missing: run scripts/setup"), "{text}");
    let floor = text.lines().find(|line| line.starts_with("hard_floor")).unwrap();
    assert!(floor.contains("2 GiB") && floor.ends_with("BOXLITE_HARD_FLOOR"), "{floor}");
}

//! Boxes under a kernel of the user's.

use std::path::PathBuf;
use std::process::Command;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::program::{Output, run};

use crate::home::Home;

/// A copy of boxlite's own kernel, which is not boxlite's own any more.
fn foreign(place: &tempfile::TempDir) -> PathBuf {
    let kernel = place.path().join("kernel");
    let own = Assets::locate().kernel();
    std::fs::create_dir(&kernel).unwrap();
    run(Command::new("cp").arg("-rL").args([own.join("vmlinuz"), own.join("modules")]).arg(&kernel));
    kernel
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[test]
fn a_kernel_of_the_users_is_tried_and_then_used_or_refused() {
    let Some(home) = Home::able() else { return };
    let (place, image) = (tempfile::tempdir().unwrap(), home.image("mini"));
    let kernel = foreign(&place);
    let named = kernel.to_str().unwrap();
    let findings = || std::fs::read_to_string(home.path().join("vm/kernels.json")).unwrap_or_default();
    let with = |kernel: &str| {
        ["run", "--rm", "--network", "none", "--kernel", kernel, &image, "true"].map(str::to_owned)
    };

    home.run(&["run", "--name", "web", "--network", "none", "--kernel", named, &image, "true"]).ok();
    assert!(findings().contains(r#""failure":null"#), "{}", findings());
    assert_eq!(home.run(&["inspect", "web"]).json()[0]["options"]["kernel"], named);
    // Its console was told all of that trial, and is told nothing of the next start.
    let console =
        home.path().join("boxes").join(home.run(&["inspect", "web"]).json()[0]["id"].as_str().unwrap());
    let console = console.join("console.log");
    let told = || std::fs::read_to_string(&console).unwrap().matches("Run /init as init process").count();
    assert_eq!(told(), 1);
    home.run(&["start", "-a", "web"]).ok();
    assert_eq!(told(), 0, "the next start is no trial");

    // A kernel by itself, which looks for another program than our agent.
    let mut unpacked = std::fs::read_dir(home.path().join("vm")).unwrap().map(|entry| entry.unwrap().path());
    let unpacked = unpacked.find(|path| path.display().to_string().contains("vmlinux-")).unwrap();
    let alone = place.path().join("vmlinux");
    std::fs::write(&alone, replaced(&std::fs::read(unpacked).unwrap(), b"/init\0", b"/nope\0")).unwrap();
    let failed = Output::of(home.command(with(alone.to_str().unwrap())).spawn().unwrap());
    let said = &failed.err;
    assert!(!failed.status.success(), "{failed:?}");
    for part in [alone.to_str().unwrap(), "brings no guest up", "its console ends with: ", "Kernel panic"] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    let again = Output::of(home.command(with(alone.to_str().unwrap())).spawn().unwrap());
    assert!(again.err.contains("brought no guest up") && again.err.contains("try it again in"), "{again:?}");
    // The box has one of its own, whatever the setting is.
    let start = home.command(["start", "-a", "web"]).env("BOXLITE_KERNEL", &alone).spawn();
    Output::of(start.unwrap()).ok();
    let set = home.command(["run", "--rm", &image, "true"]).env("BOXLITE_KERNEL", named).spawn();
    Output::of(set.unwrap()).ok();
    let info = home.command(["info"]).env("BOXLITE_KERNEL", named).spawn();
    assert!(Output::of(info.unwrap()).ok().contains(named));
}

#[test]
fn a_kernel_that_is_none_is_refused_at_once() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let refused = |kernel: &str, why: &str| {
        home.run(&["run", "--rm", "--kernel", kernel, &image, "true"]).refused(why);
    };
    refused("/nowhere/vmlinuz", "there is no kernel /nowhere/vmlinuz");
    refused("/etc", "neither a kernel nor a directory");
    refused("/etc/passwd", "can't be unpacked");
}

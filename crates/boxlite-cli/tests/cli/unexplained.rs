//! Data that the database does not explain: it is kept, shown, and given back or removed when a person says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use boxlite_testkit::program::{Output, run};
use serde_json::Value;

use crate::home::Home;

fn at_once(home: &Home, arguments: &[&str]) -> Output {
    Output::of(home.command(arguments).env("BOXLITE_GRACE", "0s").spawn().unwrap())
}

fn gc(home: &Home) -> Value {
    at_once(home, &["gc", "--format", "json"]).json()
}

fn id(home: &Home, name: &str) -> String {
    home.run(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned()
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// The critical one: the next gc deleted the directory of every box made since the backup, with exit status 0.
#[test]
fn boxes_that_a_restored_database_does_not_know_are_kept_and_given_back() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--name", "old", &image, "true"]).ok();
    let backup = fs::read(home.path().join("boxlite.db")).unwrap();
    let secret = ["run", "--name", "new", "-e", "TOKEN=s3cret", "-l", "a=b"];
    let write = ["sh", "-c", "test -e /root/kept && cat /root/kept; echo $TOKEN >/root/kept"];
    home.run(&[&secret[..], &[&image], &write].concat()).ok();
    home.run(&["create", "--name", "passing", "--rm", &image, "true"]).ok();
    let (new, passing) = (id(&home, "new"), id(&home, "passing"));
    let described = home.path().join("boxes").join(&new).join("box.json");
    assert_eq!(fs::metadata(&described).unwrap().permissions().mode() & 0o777, 0o600, "it has secrets");
    fs::write(home.path().join("boxlite.db"), &backup).unwrap();

    let report = gc(&home);
    assert_eq!((report["reclaimed"].as_u64(), entries(&home.path().join("boxes"))), (Some(0), 3), "{report}");
    let unexplained: Vec<&Value> = (report["box_directories"].as_array().unwrap().iter())
        .filter(|item| item["why"] == "unexplained" && item["image"] == image)
        .collect();
    assert_eq!(unexplained.len(), 2, "{report}");
    let text = at_once(&home, &["gc"]).ok();
    let line = text.lines().find(|line| line.starts_with("unexplained") && line.contains(&new)).unwrap();
    for part in [&image, "last modified", &format!("gc --adopt {new}"), &format!("gc --purge {new}")] {
        assert!(line.contains(part), "{line} lacks {part}");
    }

    home.run(&["create", "--name", "new", &image, "true"]).ok();
    let adopted = home.run(&["gc", "--adopt", &new[..12]]);
    let (name, notices) = (adopted.text().trim().to_owned(), adopted.err.clone());
    adopted.ok();
    assert!(name != "new" && notices.contains("'new' is taken"), "{name} {notices}");
    assert_eq!(home.run(&["gc", "--adopt", &new]).ok().trim(), name, "a second time it is as it was");
    assert_eq!(home.run(&["start", "-a", &name]).ok(), "s3cret\n");
    let labels = &home.run(&["inspect", &name]).json()[0]["options"]["labels"];
    assert_eq!(labels["a"], "b");

    home.run(&["gc", "--purge", &new]).refused("has a record");
    home.run(&["gc", "--purge", &passing[..12]]).refused("neither");
    home.run(&["gc", "--purge", &passing]).ok();
    assert_eq!(entries(&home.path().join("boxes")), 3);
    home.run(&["gc", "--purge", &passing]).refused("neither");
    home.run(&["gc", "--adopt", &passing]).refused("no box directory");
    assert!(!at_once(&home, &["gc"]).ok().contains("unexplained"));
}

/// Advice to pull from a directory that has gone led nowhere.
/// Mutation tried: the same advice wherever the image is from.
#[test]
fn a_box_whose_image_has_gone_with_its_directory_is_adopted_with_the_way_back() {
    let Some(home) = Home::able() else { return };
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("image");
    let source = home.image("mini");
    let layout = source.strip_prefix("oci:").and_then(|rest| rest.strip_suffix(":mini")).unwrap();
    let copy = || run(Command::new("cp").arg("-a").arg(layout).arg(&directory));
    copy();
    home.run(&["ls"]).ok();
    let backup = fs::read(home.path().join("boxlite.db")).unwrap();
    let image = format!("oci:{}:mini", directory.display());
    home.run(&["create", "--name", "early", &image, "true"]).ok();
    let early = id(&home, "early");
    fs::write(home.path().join("boxlite.db"), &backup).unwrap();
    fs::remove_dir_all(&directory).unwrap();

    let adopted = home.run(&["gc", "--adopt", &early]);
    assert!(adopted.err.contains("has gone as well: put it back first"), "{adopted:?}");
    adopted.ok();
    home.run(&["start", "early"]).refused("has gone as well: put it back first");
    copy();
    home.run(&["pull", &image]).ok();
    home.run(&["start", "early"]).ok();
}

#[test]
fn a_description_that_contradicts_the_disk_is_refused() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--name", "old", &image, "true"]).ok();
    let backup = fs::read(home.path().join("boxlite.db")).unwrap();
    home.run(&["run", "--name", "new", &image, "true"]).ok();
    let new = id(&home, "new");
    fs::write(home.path().join("boxlite.db"), &backup).unwrap();
    let described = home.path().join("boxes").join(&new).join("box.json");
    let text = fs::read_to_string(&described).unwrap();
    let mut altered: Value = serde_json::from_str(&text).unwrap();
    altered["record"]["disk_digest"] = "0".repeat(64).into();
    fs::write(&described, altered.to_string()).unwrap();
    home.run(&["gc", "--adopt", &new]).refused("do not belong together");
    altered["format"] = 2.into();
    fs::write(&described, altered.to_string()).unwrap();
    home.run(&["gc", "--adopt", &new]).refused("another boxlite");
    fs::remove_file(&described).unwrap();
    home.run(&["gc", "--adopt", &new]).refused("no box.json");
    fs::write(&described, text).unwrap();
    assert_eq!(home.run(&["gc", "--adopt", &new]).ok(), "new\n");
    home.run(&["start", "new"]).ok();
}

#[test]
fn the_database_of_another_home_makes_gc_keep_everything() {
    let (Some(home), Some(other)) = (Home::able(), Home::able()) else { return };
    let image = home.image("mini");
    home.run(&["run", "--name", "ours", &image, "true"]).ok();
    other.run(&["create", "--name", "theirs", &image, "true"]).ok();
    let database = |home: &Home| home.path().join("boxlite.db");
    let own = fs::read(database(&home)).unwrap();
    fs::copy(database(&other), database(&home)).unwrap();
    let kept = at_once(&home, &["gc"]);
    assert_eq!(kept.code(), Some(1), "{kept:?}");
    assert!(kept.text().contains("gc --adopt-home"), "{kept:?}");
    assert!(kept.text().contains("0 items removed"), "{kept:?}");
    home.run(&["gc", "--adopt-home"]).ok();
    assert_eq!(at_once(&home, &["gc"]).code(), Some(0), "unexplained, but no stranger any more");
    assert_eq!(entries(&home.path().join("boxes")), 1);
    fs::write(database(&home), own).unwrap();
    assert_eq!(at_once(&home, &["gc"]).code(), Some(0));
    home.run(&["start", "ours"]).ok();

    // A whole home that was copied goes on working.
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(home.path().join("."))
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let collected = std::process::Command::new(crate::home::program())
        .args(["--home", copy.path().to_str().unwrap(), "gc"])
        .env("BOXLITE_GRACE", "0s")
        .output();
    assert!(collected.unwrap().status.success());
}

#[test]
fn a_kill_at_any_step_of_create_and_rm_leaves_nothing_that_gc_keeps() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["pull", &image]).ok();
    let create = ["create", "--name", "web", &image, "true"];
    let killed = |arguments: &[&str], fault: &str| {
        let killed = home.command(arguments).env("BOXLITE_FAULT", format!("{fault}=kill")).spawn();
        let killed = Output::of(killed.unwrap());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{fault}");
    };
    let leaves_nothing = |fault: &str| {
        assert_eq!(at_once(&home, &["gc"]).code(), Some(0), "{fault}");
        let left = |directory: &str| entries(&home.path().join(directory));
        assert_eq!((left("boxes"), left("images/tmp")), (0, 0), "{fault}");
        home.run(&create).ok();
    };
    for fault in ["dir.staged", "dir.written", "dir.synced", "dir.renamed", "create.unrecorded"] {
        killed(&create, fault);
        assert_eq!(home.run(&["ls", "-aq"]).ok(), "", "{fault}");
        leaves_nothing(fault);
        home.run(&["rm", "web"]).ok();
    }
    home.run(&create).ok();
    for fault in ["rm.unrecorded", "discard.start", "discard.renamed"] {
        killed(&["rm", "web"], fault);
        leaves_nothing(fault);
    }
}

/// A database with a rollback journal counts the transactions that wrote to it.
fn transactions(home: &Home) -> u32 {
    let database = fs::read(home.path().join("boxlite.db")).unwrap();
    u32::from_be_bytes(database[24..28].try_into().unwrap())
}

/// Each transaction has five fsyncs and makes all other starts wait: there were six.
#[test]
fn a_run_that_leaves_nothing_has_three_transactions() {
    let Some(home) = Home::able() else { return };
    let run = ["run", "--rm", "--network", "none", &home.image("mini"), "true"];
    home.run(&run).ok();
    let before = transactions(&home);
    home.run(&run).ok();
    assert_eq!(transactions(&home) - before, 3, "the box's record, its start, and its removal");
    assert_eq!(at_once(&home, &["gc"]).code(), Some(0));
    let left = |directory: &str| entries(&home.path().join(directory));
    assert_eq!((left("boxes"), left("images/tmp")), (0, 0));
}

/// The shim comes up while its start is being recorded.
#[test]
fn a_start_that_is_cut_short_before_its_record_never_runs() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let command = ["sh", "-c", "echo ran >>/root/runs; cat /root/runs"];
    home.run(&[&["create", "--name", "web", "--network", "none", &image][..], &command].concat()).ok();
    let state = || home.run(&["inspect", "web"]).json()[0]["state"].as_str().unwrap().to_owned();
    let shim = home.path().join("boxes").join(id(&home, "web")).join("shim.lock");
    let cut = |fault: &str| {
        let cut = home.command(["start", "web"]).env("BOXLITE_FAULT", fault).spawn();
        assert!(!Output::of(cut.unwrap()).status.success(), "{fault}");
        // The shim that was called off ends, and its lock with it.
        boxlite_home::durable::Lock::exclusive(&shim).unwrap().release();
    };
    cut("start.unrecorded=kill");
    assert_eq!(state(), "created");
    cut("start.unrecorded=fail");
    assert_eq!(state(), "created");
    cut("start.recorded=kill");
    assert_eq!(state(), "failed", "it was recorded");
    assert_eq!(home.run(&["start", "-a", "web"]).ok(), "ran\n", "no start before has run");
}

/// 18 % of the boxes failed: "opening the lock file …/state.lock".
#[test]
fn boxes_are_created_and_removed_beside_gc_without_grace() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["pull", &image]).ok();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(at_once(&home, &["gc"]).code(), Some(0));
                }
            });
        }
        let makers: Vec<_> = (0..2)
            .map(|maker| {
                let (home, image) = (&home, &image);
                scope.spawn(move || {
                    for index in 0..15 {
                        let name = format!("box-{maker}-{index}");
                        home.run(&["create", "--name", &name, image, "true"]).ok();
                        home.run(&["rm", &name]).ok();
                    }
                })
            })
            .collect();
        let made: Vec<_> = makers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        for made in made {
            made.unwrap();
        }
    });
}

/// Each of the two left a new home at the mistyped path.
#[test]
fn gc_and_df_of_a_mistyped_home_create_none() {
    let directory = tempfile::tempdir().unwrap();
    let typo = directory.path().join("hmoe");
    for arguments in [&["gc"][..], &["gc", "--adopt-home"], &["system", "df"]] {
        let command = std::process::Command::new(crate::home::program())
            .arg("--home")
            .arg(&typo)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&command.stderr).into_owned();
        assert!(!command.status.success() && said.contains("is not a boxlite home"), "{said}");
        assert!(!typo.exists(), "{arguments:?}");
    }
}

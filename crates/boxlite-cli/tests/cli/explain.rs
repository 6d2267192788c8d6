//! What boxlite says of its own accord: who pins what, what stands in a collection's way, and what to do about it.

use std::fs;

use boxlite_testkit::program::Output;

use crate::home::Home;

fn at_once(home: &Home, arguments: &[&str]) -> Output {
    Output::of(home.command(arguments).env("BOXLITE_GRACE", "0s").spawn().unwrap())
}

fn id(home: &Home, name: &str) -> String {
    home.run(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Mutation tried: names of images not looked up.
#[test]
fn an_image_a_box_and_a_base_are_explained_by_name() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["run", "--name", "one", &image, "sh", "-c", "echo kept >/root/file"]).ok();
    home.run(&["clone", "--name", "two", "one"]).ok();
    let (one, base) = (id(&home, "one"), fs::read_dir(home.path().join("bases")).unwrap().next());
    let base = base.unwrap().unwrap().file_name().into_string().unwrap();
    let short = &one[..12];

    let of_image = words(&home.run(&["gc", "--explain", &image]).ok());
    for part in ["disk image", " kept ", &format!("box {short}"), &format!("base {base}"), "not by itself"] {
        assert!(of_image.contains(part), "{of_image} lacks {part}");
    }
    let of_box = words(&home.run(&["gc", "--explain", "one"]).ok());
    assert!(of_box.contains("needs: ") && of_box.contains(&base), "{of_box}");
    let of_base = home.run(&["gc", "--explain", &base, "--format", "json"]).json();
    assert_eq!(of_base["subjects"][0]["kind"], "base", "{of_base}");
    assert_eq!(of_base["subjects"][0]["by"][0]["kind"], "chain", "{of_base}");
    assert_eq!(of_base["needs"][0]["kind"], "disk_image", "{of_base}");
    home.run(&["gc", "--explain", "nobody"]).refused("no image, box or base is called 'nobody'");

    home.run(&["rm", "one", "two"]).ok();
    let of_image = words(&home.run(&["gc", "--explain", &image]).ok());
    assert!(of_image.contains("modified within the grace in 10 min"), "{of_image}");
    let of_image = words(&at_once(&home, &["gc", "--explain", &image]).ok());
    assert!(of_image.contains("would be removed") && of_image.contains(" now"), "{of_image}");
}

/// One such overlay stopped every collection. Mutation tried: the path alone in the report.
#[test]
fn a_broken_box_that_the_database_does_not_know_is_named_with_its_remedy() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", &home.image("mini")]).ok();
    let backup = fs::read(home.path().join("boxlite.db")).unwrap();
    home.run(&["run", "--name", "one", &home.image("mini"), "true"]).ok();
    home.run(&["run", "--rm", &home.image("python"), "true"]).ok();
    let one = id(&home, "one");
    let digest = home.run(&["gc", "--explain", "one", "--format", "json"]).json();
    let digest = digest["needs"][0]["name"].as_str().unwrap().to_owned();
    fs::write(home.path().join("boxlite.db"), backup).unwrap();
    fs::write(home.path().join("boxes").join(&one).join("disks/root.qcow2"), "QFI").unwrap();

    let collected = at_once(&home, &["gc"]);
    assert_eq!(collected.code(), Some(1), "{collected:?}");
    let text = collected.text();
    let line = text.lines().find(|line| line.starts_with("unreadable:")).unwrap();
    assert!(line.contains(&one) && line.contains(&format!("gc --purge {one}")), "{line}");
    assert!(text.lines().any(|line| line.starts_with("unexplained:") && line.contains(&one)), "{text}");
    assert!(text.contains("stay while a box is unexplained"), "{text}");
    let left: Vec<_> = fs::read_dir(home.path().join("images/disk-images"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [digest], "the box's own disk image alone stays");
    home.run(&["gc", "--purge", &one]).ok();
    assert_eq!(at_once(&home, &["gc"]).code(), Some(0));
    assert_eq!(fs::read_dir(home.path().join("images/disk-images")).unwrap().count(), 0);
}

/// It ended with 75, as if the host were short of space. Mutation tried: the limit taken for a shortage.
#[test]
fn an_image_over_a_limit_is_not_a_shortage() {
    let Some(home) = Home::able() else { return };
    let mut command = home.command(["run", &home.image("mini"), "true"]);
    let refused = Output::of(command.env("BOXLITE_MAX_EXPANDED", "64KiB").spawn().unwrap());
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(
        refused.err.contains("max_expanded") && refused.err.contains("hint: raise the setting"),
        "{refused:?}"
    );
    assert!(!refused.err.contains("boxlite gc"), "{refused:?}");
}

/// Each had a hint for another cause of the same kind of error. Mutation tried: no look at the cause.
#[test]
fn hints_are_about_the_cause() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("shared")).unwrap();
    let hinted = |refused: Output, hint: &str, not: &str| {
        assert_eq!(refused.code(), Some(125), "{refused:?}");
        assert!(refused.err.contains(hint) && !refused.err.contains(not), "{refused:?}");
    };
    let volume = |source: &str| home.run(&["create", "-v", &format!("{source}:/x"), &image]);
    hinted(volume("/dev/null"), "HOST is a directory or a file", "boxlite info");
    hinted(volume("data/x"), "HOST is a directory or a file", "boxlite info");
    hinted(volume(&at("gone")), "never creates a volume's directory", "docker-archive");
    let archive = format!("docker-archive:{}", at("file"));
    hinted(home.run(&["run", &archive, "true"]), "make it anew", "`boxlite pull`");
    home.run(&["create", "--name", "web", "-v", &format!("{}:/x", at("shared")), &image]).ok();
    fs::remove_dir(at("shared")).unwrap();
    hinted(home.run(&["start", "web"]), "never creates a volume's directory", "ls -a");
}

/// It ended with 125, "opening the directory … failed", and the record stayed. Mutation tried: removing what is there.
#[test]
fn a_box_whose_directory_is_something_else_is_removed_by_force() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "web", &home.image("mini"), "true"]).ok();
    let root = home.path().join("boxes").join(id(&home, "web"));
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "notes").unwrap();
    home.run(&["start", "web"]).refused("`boxlite rm -f` removes its record");
    let removed = home.run(&["rm", "-f", "web"]);
    assert!(removed.err.contains("stays where it is"), "{removed:?}");
    removed.ok();
    assert_eq!(
        (home.run(&["ls", "-aq"]).ok().as_str(), fs::read(&root).unwrap().as_slice()),
        ("", &b"notes"[..])
    );
    assert_eq!(at_once(&home, &["gc"]).code(), Some(0));
    fs::remove_file(root).unwrap();
}

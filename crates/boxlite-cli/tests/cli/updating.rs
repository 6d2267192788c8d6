//! Changes of boxes after their creation, and of clones beside their origin.

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

/// Mutation tried: a rename that leaves the database's column alone finds the box under its old name.
#[test]
fn a_stopped_box_is_changed_and_a_running_one_only_where_it_can_be() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&[
        "create",
        "--name",
        "web",
        "-e",
        "A=1",
        "-e",
        "B=2",
        "-p",
        "127.0.0.1::80",
        &image,
        "sleep",
        "infinity",
    ])
    .ok();
    let changes = [
        "-m",
        "160m",
        "--cpus",
        "2",
        "-e",
        "A=3",
        "-p",
        "127.0.0.1::8080",
        "--restart",
        "on-failure",
        "--ttl",
        "1h",
    ];
    home.run(&[&["update"], &changes[..], &["--idle-timeout", "1h", "--disk-io", "50m", "web"]].concat())
        .ok();
    home.run(&["start", "web"]).ok();
    let info = inspect(&home, "web");
    assert_eq!(info["options"]["memory"], 160 << 20);
    assert_eq!((&info["options"]["restart"], &info["options"]["ttl"]), (&"on-failure".into(), &3600.into()));
    assert_eq!(info["ports"][0]["guest"], 8080);
    let seen = home.run(&["exec", "web", "sh", "-c", "echo $A $B; nproc"]).ok();
    assert_eq!(seen, "3 2\n2\n");

    home.run(&["update", "-m", "200m", "web"]).refused("stop it first");
    home.run(&["update", "-e", "C=1", "--ttl", "2h", "web"]).refused("stop it first");
    assert_eq!(inspect(&home, "web")["options"]["ttl"], 3600, "all of an update or nothing");
    home.run(&["update", "--restart", "no", "--ttl", "none", "web"]).ok();
    home.run(&["update", "--restart", "on-failure", "web"]).ok();
    home.run(&["update", "--restart", "no", "web"]).ok();
    home.run(&["rename", "web", "site"]).ok();
    home.run(&["inspect", "web"]).refused("web");
    assert_eq!(home.run(&["exec", "site", "echo", "served"]).ok(), "served\n");

    // A run that began without a keeper has none, whatever its options by now.
    home.run(&["run", "-d", "--name", "plain", &image, "sleep", "infinity"]).ok();
    home.run(&["update", "--ttl", "1h", "plain"]).ok();
    home.run(&["update", "--restart", "always", "plain"]).refused("nothing beside it could restart it");
    home.run(&["rm", "-f", "plain"]).ok();

    home.run(&["create", "--name", "other", &image]).ok();
    home.run(&["rename", "site", "other"]).refused("taken");
    home.run(&["rename", "site", "a b"]).refused("a b");
    home.run(&["rename", "nobody", "x"]).refused("nobody");
    home.run(&["update", "other"]).refused("--disk-quota");
    home.run(&["update", "-m", "1m", "other"]).refused("memory");
    home.run(&["update", "-m", "900t", "other"]).lacks_room("memory");
    home.run(&["update", "-e", "=x", "other"]).refused("no name");
    home.run(&["update", "-p", "x", "other"]).refused("x");
    home.run(&["update", "--rm", "other"]).refused("--rm");
    assert_eq!(inspect(&home, "site")["state"], "running");
    assert_eq!(inspect(&home, "other")["options"]["memory"], 256 << 20);
    home.run(&["update", "-p", "none", "--idle-timeout", "none", "--disk-io", "none", "other"]).ok();
    let description = home.path().join("boxes").join(inspect(&home, "site")["id"].as_str().unwrap());
    let description = std::fs::read_to_string(description.join("box.json")).unwrap();
    assert!(description.contains("\"name\": \"site\"") && !description.contains("\"web\""), "{description}");
}

/// Mutations tried: memory, ports, volumes, each left as the origin has it.
#[test]
fn a_clone_differs_where_it_was_told_to() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("file"), "shared\n").unwrap();
    let volume = format!("{}:/data", shared.path().display());
    home.run(&[
        "create",
        "--name",
        "origin",
        "-e",
        "A=1",
        "-p",
        "127.0.0.1:1:80",
        "--restart",
        "always",
        &image,
        "sh",
        "-c",
        "cat /data/file; echo $A",
    ])
    .ok();
    home.run(&["clone", "--name", "copy", "-m", "160m", "-e", "A=2", "-p", "none", "-v", &volume, "origin"])
        .ok();
    let copy = inspect(&home, "copy");
    assert_eq!(
        (&copy["options"]["memory"], &copy["options"]["ports"]),
        (&(160 << 20).into(), &serde_json::json!([]))
    );
    home.run(&["update", "--restart", "no", "copy"]).ok();
    home.run(&["start", "copy"]).ok();
    home.run(&["wait", "copy"]).ok();
    assert_eq!(home.run(&["logs", "copy"]).text(), "shared\n2\n");
    assert_eq!(inspect(&home, "origin")["options"]["ports"], serde_json::json!(["127.0.0.1:1:80"]));
    home.run(&["clone", "-m", "1", "origin"]).refused("memory");
    home.run(&["clone", "-v", "/no/such/place:/x", "origin"]).refused("/no/such/place");
    assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 2);
}

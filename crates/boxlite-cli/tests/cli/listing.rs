//! `ls`, `inspect` and `images`, without a virtual machine.

use crate::home::Home;

#[test]
fn boxes_are_listed_filtered_and_inspected() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let one = home.run(&["create", "--name", "one", "-l", "tier=front", &image, "true"]).ok();
    home.run(&["create", "--name", "two", "-p", "8080:80", &home.image("app")]).ok();
    let names = |arguments: &[&str]| -> Vec<String> {
        let arguments: Vec<&str> = ["ls", "--format", "json"].iter().chain(arguments).copied().collect();
        let list = home.run(&arguments).json();
        let name = |info: &serde_json::Value| info["name"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    assert!(names(&[]).is_empty(), "only running boxes are shown");
    assert_eq!(names(&["-a"]), ["one", "two"]);
    assert_eq!(names(&["-f", "status=created", "-f", "label=tier"]), ["one"]);
    assert_eq!(names(&["-a", "--filter", "name=tw"]), ["two"]);
    assert_eq!(names(&["-a", "--filter", "label=tier=back"]), [""; 0]);
    assert_eq!(names(&["-a", "--filter", &format!("id={}", &one[..6])]), ["one"]);
    assert_eq!(names(&["-a", "--filter", &format!("ancestor={image}")]), ["one"]);
    assert_eq!(home.run(&["ps", "-aq", "--no-trunc"]).ok().lines().last(), Some(one.trim()));

    let table = home.run(&["ls", "-a", "-s"]).ok();
    assert!(table.starts_with("BOX ID "), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("Created") && !table.contains('\u{1b}'), "{table}");

    let both = home.run(&["inspect", "two", "one"]).json();
    assert_eq!((&both[0]["name"], &both[1]["name"]), (&"two".into(), &"one".into()));
    assert_eq!(both[1]["options"]["labels"]["tier"], "front");
    let some = home.run(&["inspect", "one", "gone"]);
    assert_eq!(some.code(), Some(125));
    assert!(some.err.contains("gone") && some.text().contains("\"one\""), "{some:?}");
}

#[test]
fn templates_choose_what_is_printed() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    home.run(&["create", "--name", "one", "--cpus", "2", &image, "true"]).ok();
    home.run(&["create", "--name", "two", "-p", "8080:80", &image, "true"]).ok();
    assert_eq!(
        home.run(&["ls", "-a", "--format", "{{.Name}}\\t{{.State}}"]).ok(),
        "two\tcreated\none\tcreated\n"
    );
    assert_eq!(home.run(&["inspect", "-f", "{{.Options.Cpus}}", "one", "two"]).ok(), "2\n1\n");
    home.run(&["ls", "-a", "--format", "{{.Nmae}}"]).refused("there are");
    home.run(&["ls", "--format", "{{range .}}"]).refused("json .ports");
}

/// What scripts made for Docker give. Mutations tried: the file is not made first; an empty one stays.
#[test]
fn scripts_for_containers_find_what_they_expect() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let path = file.to_str().unwrap();
    let options =
        ["--init", "--privileged", "--cap-add", "ALL", "--platform", "linux/amd64", "--net", "bridge"];
    let line = [&["create", "--name", "one", "--cidfile", path][..], &options, &[&image, "true"]].concat();
    let created = home.run(&line);
    assert_eq!(created.err, "", "nothing is lost to these options");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), created.ok().trim());
    home.run(&["create", "--cidfile", path, &image]).refused("may name another box");
    let other = folder.path().join("other");
    home.run(&["create", "--cidfile", other.to_str().unwrap(), "--name", "one", &image]).refused("one");
    assert!(!other.exists(), "a file without an id stays");
    let noted = home.run(&["create", "--cap-drop", "ALL", "--security-opt", "x", &image, "true"]);
    assert!(noted.err.contains("--cap-drop and --security-opt have no effect"), "{noted:?}");
    noted.ok();

    assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 2);
    home.run(&["rm", "--all", "one"]).refused("--all");
    assert_eq!(home.run(&["rm", "--all"]).ok().lines().count(), 2);
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
    assert_eq!(home.run(&["rm", "--all"]).ok(), "");
}

#[test]
fn images_come_and_go_by_name() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let pulled = home.run(&["pull", &image]).ok();
    let digest = pulled.split_whitespace().last().unwrap().to_owned();
    assert!(digest.starts_with("sha256:"), "{pulled}");
    assert_eq!(home.run(&["pull", "-q", &image]).ok().trim(), digest);
    let list = home.run(&["images", "--format", "json"]).json();
    assert_eq!(list[0]["digest"], digest.as_str());
    let id = home.run(&["images", "-q"]).ok();
    assert_eq!(format!("sha256:{}", id.trim()), digest[..19]);
    assert_eq!(home.run(&["inspect", id.trim()]).json()[0]["digest"], digest.as_str());

    home.run(&["create", "--name", "user", &image]).ok();
    let error = home.run(&["rmi", &image]).refused("");
    assert!(error.contains("hint: "), "{error}");
    home.run(&["rm", "user"]).ok();
    let removed = home.run(&["rmi", &image]).ok();
    assert!(removed.contains("Untagged: ") && removed.contains(&format!("Deleted: {digest}")), "{removed}");
    assert_eq!(home.run(&["images", "-q"]).ok(), "");
    home.run(&["rmi", &image]).refused("");
}

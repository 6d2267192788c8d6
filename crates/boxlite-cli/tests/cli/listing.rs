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

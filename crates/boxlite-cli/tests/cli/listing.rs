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
    home.run(&["ls", "--format", "{{range .}}"]).refused("no `{{end}}`");
    home.run(&["ls", "--format", "{{frob .}}"]).refused("json .ports");

    // As Docker's users write it.
    home.run(&["network", "create", "back"]).ok();
    home.run(&["volume", "create", "-d", "local", "--label", "a=b", "data"]).ok();
    let options = [
        "--network",
        "back",
        "-v",
        "data:/var/lib/x:ro",
        "-l",
        "tier=front",
        "-e",
        "A=1",
        "--restart",
        "on-failure:3",
    ];
    home.run(&[&["create", "--name", "three"][..], &options, &[&image, "sleep", "9"]].concat()).ok();
    let inspected = |template: &str| home.run(&["inspect", "-f", template, "three"]).ok();
    let state = "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{if .State.Health}}x{{end}}";
    assert_eq!(inspected(state), "created false 0 \n");
    let networks = "{{range $n, $of := .NetworkSettings.Networks}}{{$n}}={{$of.IPAddress}}{{end}} {{.NetworkSettings.IPAddress}}";
    assert_eq!(inspected(networks), "back=10.89.0.2 10.89.0.2\n");
    let config = "{{range .Config.Env}}{{println .}}{{end}}{{join .Config.Cmd \",\"}} {{index .Config.Labels \"tier\"}} {{.HostConfig.NanoCpus}}";
    assert_eq!(inspected(config), "A=1\nsleep,9 front 1000000000\n");
    let mounts = "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(inspected(mounts), "volume data /var/lib/x false on-failure\n");
    let listed = home
        .run(&[
            "ps",
            "-n",
            "1",
            "--format",
            "table {{.Names}}\t{{.Status}}\t{{.Label \"tier\"}}\t{{.Networks}}",
        ])
        .ok();
    assert_eq!(listed, "NAMES   STATUS    LABEL   NETWORKS\nthree   Created   front   back\n");
    assert_eq!(home.run(&["container", "ls", "-lq", "--no-trunc"]).ok(), inspected("{{.Id}}"));
    let images = ["image", "ls", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"];
    let names = format!(
        "{} mini {}\n",
        image.strip_suffix(":mini").unwrap(),
        home.run(&["images", "-q"]).ok().trim()
    );
    assert_eq!(home.run(&images).ok(), names);
    assert_eq!(home.run(&["images", "-q", &image]).ok().lines().count(), 1);
    assert_eq!(home.run(&["images", "-aq", "other"]).ok(), "");
    assert_eq!(home.run(&["images", "-q", "-f", "dangling=true"]).ok(), "");
    assert_eq!(
        home.run(&["images", "-q", "-f", "dangling=false", "-f", &format!("reference={image}")])
            .ok()
            .lines()
            .count(),
        1
    );
    assert_eq!(home.run(&["images", "-q", "-f", "label=none"]).ok(), "");
    let volume =
        home.run(&["volume", "inspect", "-f", "{{.Mountpoint}} {{.Driver}} {{.Labels}}", "data"]).ok();
    assert!(volume.ends_with("/volumes/data/disk.ext4 local a=b\n"), "{volume}");
    let network =
        "{{range .IPAM.Config}}{{.Subnet}}{{end}} {{range .Containers}}{{.Name}}={{.IPv4Address}}{{end}}";
    assert_eq!(
        home.run(&["network", "inspect", "-f", network, "back"]).ok(),
        "10.89.0.0/24 three=10.89.0.2/24\n"
    );
    assert_eq!(home.run(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok(), "back bridge\n");
    assert_eq!(
        home.run(&["info", "-f", "{{.Containers}} {{.OSType}} {{.space.verdict}}"]).ok(),
        "3 linux ok\n"
    );
    assert_eq!(
        home.run(&["version", "-f", "{{.Server.Version}}"]).ok(),
        format!("{}\n", env!("CARGO_PKG_VERSION"))
    );
    let events =
        ["system", "events", "--since", "1h", "--until", "0s", "-f", "event=create", "-f", "type=container"];
    let events =
        home.run(&[&events[..], &["--format", "{{.Type}} {{.Actor.Attributes.name}}"]].concat()).ok();
    assert_eq!(events, "container one\ncontainer two\ncontainer three\n");
    assert_eq!(
        home.run(&["image", "inspect", "-f", "{{.Os}} {{.RepoTags}}", &image]).ok(),
        format!("linux [\"{image}\"]\n")
    );
    home.run(&["container", "inspect", &image]).refused("there is no box");
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
    let more = [
        "--memory-swap",
        "-1",
        "--pids-limit=10",
        "--ipc",
        "host",
        "--log-opt",
        "max-size=1m",
        "--expose",
        "80",
    ];
    let noted = home.run(
        &[&["create", "--cap-drop", "ALL", "--security-opt", "x"][..], &more, &[&image, "true"]].concat(),
    );
    assert!(noted.err.contains("--cap-drop and --security-opt have no effect"), "{noted:?}");
    assert!(noted.err.contains("--memory-swap, --pids-limit and --ipc have no effect"), "{noted:?}");
    assert!(
        noted.err.contains("--log-opt has no effect") && noted.err.contains("--expose has no effect"),
        "{noted:?}"
    );
    assert_eq!(noted.err.lines().count(), 4, "{noted:?}");
    noted.ok();

    assert_eq!(home.run(&["ls", "-aq"]).ok().lines().count(), 2);
    home.run(&["rm", "--all", "one"]).refused("--all");
    assert_eq!(home.run(&["rm", "-v", "--all"]).ok().lines().count(), 2);
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

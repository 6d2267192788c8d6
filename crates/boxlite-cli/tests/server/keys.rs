//! Several keys: whose boxes are whose, and how many a key may have.

use std::path::Path;
use std::process::{Command, Stdio};

use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use boxlite_testkit::program::Output;
use rustix::process::Signal;

use crate::home::{Home, program};
use crate::refusals::key;
use crate::serving::Server;

fn with_key(server: &Server, file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("--url").arg(&server.url).arg("--api-key-file").arg(file).args(arguments);
    command.env_remove("BOXLITE_HOME").env_remove("BOXLITE_API_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Output::of(command.spawn().expect("starting boxlite"))
}

#[test]
fn a_key_has_its_own_boxes_and_no_more_than_its_limit() {
    let Some(home) = Home::able() else { return };
    let (ci, laptop) = (home.path().join("ci.key"), home.path().join("laptop.key"));
    let entry = |name: &str, file: &Path| home.run(&["serve-key", name, file.to_str().unwrap()]).ok();
    let (of_ci, of_laptop) = (entry("ci", &ci), entry("laptop", &laptop));
    assert_eq!(entry("ci", &ci), of_ci, "a key that is there is kept");
    home.run(&["serve-key", "a b", home.path().join("x").to_str().unwrap()]).refused("not a name for a key");
    assert!(!home.path().join("x").exists());
    let short = key(&home, "password", 0o600);
    home.run(&["serve-key", "ci", short.to_str().unwrap()]).refused("has 8 characters");
    let keys = home.path().join("keys.toml");
    let write = |text: &str| {
        let status = Command::new("install").args(["-m", "600", "/dev/null"]).arg(&keys).status().unwrap();
        assert!(status.success());
        std::fs::write(&keys, text).unwrap();
    };
    write(&format!("{of_ci}max_boxes = 2\nmax_memory = \"600MiB\"\n{of_laptop}"));
    let operator = key(&home, "secret", 0o600);
    let arguments = [
        "--keys-file",
        keys.to_str().unwrap(),
        "--api-key-file",
        operator.to_str().unwrap(),
        "--allow-path",
        home.layout().to_str().unwrap(),
    ];
    let server = Server::start(&home, &arguments);
    let image = home.image("mini");
    let create = |file: &Path, name: &str, memory: &str| {
        with_key(&server, file, &["create", "--name", name, "-m", memory, &image, "true"])
    };
    create(&ci, "first", "256m").ok();
    create(&laptop, "theirs", "256m").ok();
    create(&ci, "second", "1g").refused("key ci may have 600 MiB of memory, has 256 MiB of memory");
    create(&ci, "second", "256m").ok();
    create(&ci, "third", "16m").refused("key ci may have 2 boxes, has 2 boxes, and asks for 1 box more");
    with_key(&server, &ci, &["clone", "--name", "third", "first"]).refused("may have 2 boxes");
    with_key(&server, &ci, &["rm", "theirs"]).refused("there is no box theirs");
    with_key(&server, &ci, &["system", "df", "--tree"]).refused("key ci cannot see the tree of the disk");
    assert!(with_key(&server, &operator, &["system", "df", "--tree"]).ok().contains("box theirs is created"));
    drop(server);

    // What belongs to whom outlives the server.
    let server = Server::start(&home, &arguments);
    let listed = |file: &Path| {
        let mut names: Vec<String> =
            with_key(&server, file, &["ls", "-aq"]).ok().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!([listed(&ci).len(), listed(&laptop).len(), listed(&operator).len()], [2, 1, 3]);
    with_key(&server, &ci, &["rm", "second"]).ok();
    with_key(&server, &operator, &["rm", "theirs"]).ok();
    let shown = home.run(&["inspect", "first"]).json();
    assert_eq!(shown[0]["options"]["labels"]["boxlite.key"], "ci");

    // Without its handler, this signal ends the server.
    write(&of_laptop);
    server.signal(Signal::HUP);
    until(TEST_TIMEOUT, "the key that was taken out is refused", || {
        with_key(&server, &ci, &["ls"]).code() != Some(0)
    });
    with_key(&server, &laptop, &["ls"]).ok();
}

/// Mutation tried: without the look at whose volume it is, `laptop` mounts and removes that of `ci`.
#[test]
fn a_key_has_its_own_volumes_within_its_limit() {
    let Some(home) = Home::able() else { return };
    let (ci, laptop) = (home.path().join("ci.key"), home.path().join("laptop.key"));
    let entry = |name: &str, file: &Path| home.run(&["serve-key", name, file.to_str().unwrap()]).ok();
    let entries = format!("{}max_disk = \"12GiB\"\n{}", entry("ci", &ci), entry("laptop", &laptop));
    let keys = key(&home, &entries, 0o600);
    let arguments = ["--keys-file", keys.to_str().unwrap(), "--allow-path", home.layout().to_str().unwrap()];
    let server = Server::start(&home, &arguments);
    let volume =
        |file: &Path, arguments: &[&str]| with_key(&server, file, &[&["volume"], arguments].concat());
    volume(&ci, &["create", "--size", "1g", "cache"]).ok();
    volume(&ci, &["create", "--size", "12g", "more"])
        .refused("key ci may have 12 GiB of virtual disk, has 1 GiB");
    volume(&laptop, &["create", "cache"]).refused("there is a volume 'cache' already");
    for line in [&["inspect", "cache"][..], &["rm", "cache"]] {
        volume(&laptop, line).refused("there is no volume 'cache'");
    }
    assert_eq!(volume(&laptop, &["ls", "-q"]).ok(), "");
    assert_eq!(volume(&laptop, &["prune", "-f"]).ok(), "0 B freed\n");
    volume(&laptop, &["create", "--size", "32m", "scratch"]).ok();
    assert_eq!(volume(&laptop, &["rm", "scratch"]).ok(), "scratch\n");
    let image = home.image("mini");
    let create = |file: &Path, mount: &str| with_key(&server, file, &["create", "-v", mount, &image, "true"]);
    create(&laptop, "cache:/x").refused("belongs to another");
    create(&laptop, "own:/x").ok();
    // The box's disk of 10 GiB, the volume of 1 GiB, and another of the usual size are too much.
    create(&ci, "another:/x").refused("key ci may have 12 GiB of virtual disk");
    create(&ci, "cache:/x:ro").ok();
    volume(&ci, &["rm", "cache"]).refused("mounted by box");
    assert_eq!(volume(&ci, &["ls", "-q"]).ok(), "cache\n");
    assert_eq!(home.run(&["volume", "ls", "-q"]).ok(), "cache\nown\n");
    let shown = volume(&laptop, &["inspect", "own"]).json();
    assert_eq!(shown[0]["labels"]["boxlite.key"], "laptop", "{shown}");
}

/// Mutation tried: without the look at whose networks an update names.
#[test]
fn a_key_has_its_own_networks_also_for_boxes_that_join_later() {
    let Some(home) = Home::able() else { return };
    let (ci, laptop) = (home.path().join("ci.key"), home.path().join("laptop.key"));
    let entry = |name: &str, file: &Path| home.run(&["serve-key", name, file.to_str().unwrap()]).ok();
    let keys = key(&home, &(entry("ci", &ci) + &entry("laptop", &laptop)), 0o600);
    let arguments = ["--keys-file", keys.to_str().unwrap(), "--allow-path", home.layout().to_str().unwrap()];
    let server = Server::start(&home, &arguments);
    with_key(&server, &ci, &["network", "create", "back"]).ok();
    with_key(&server, &ci, &["network", "create", "front"]).ok();
    let image = home.image("mini");
    let create = |file: &Path, name: &str, networks: &[&str]| {
        with_key(&server, file, &[&["create", "--name", name], networks, &[&image, "true"]].concat())
    };
    create(&laptop, "theirs", &["--network", "back"]).refused("there is no network 'back'");
    create(&laptop, "theirs", &[]).ok();
    create(&ci, "own", &["--network", "back:alias=db", "--network", "front"]).ok();
    for change in [&["network", "connect", "back", "theirs"][..], &["update", "--network", "back", "theirs"]]
    {
        with_key(&server, &laptop, change).refused("there is no network 'back'");
    }
    with_key(&server, &ci, &["network", "disconnect", "front", "own"]).ok();
    with_key(&server, &ci, &["network", "connect", "--ip", "10.89.1.9", "front", "own"]).ok();
    let shown = home.run(&["inspect", "own", "theirs"]).json();
    let networks: Vec<_> = shown[0]["memberships"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["network"], &it["address"]))
        .collect();
    assert_eq!(networks, [(&"back".into(), &"10.89.0.2".into()), (&"front".into(), &"10.89.1.9".into())]);
    assert!(shown[1].get("memberships").is_none(), "{shown}");
}

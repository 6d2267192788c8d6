//! What a box's options say of names, limits, processors and the kernel inside it; and its list of processes.

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

#[test]
fn names_limits_and_parameters_are_those_that_were_asked_for() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let options = "--add-host db.test:192.0.2.9 --add-host six.test:2001:db8::1 --dns 192.0.2.53 --dns 192.0.2.54 \
                   --dns-search lan.test --ulimit nofile=100:200 --ulimit core=unlimited --sysctl \
                   net.core.somaxconn=77 --sysctl vm.max_map_count=262144";
    let line: Vec<&str> =
        ["run", "-d", "--name", "opts"].into_iter().chain(options.split_whitespace()).collect();
    home.run(
        &[&line[..], &["--sysctl", "net.ipv4.ip_local_port_range=2000 3000", &image, "sleep", "infinity"]]
            .concat(),
    )
    .ok();
    let inside = |script: &str| home.run(&["exec", "opts", "sh", "-c", script]).ok();
    let hosts = inside("cat /etc/hosts");
    assert!(hosts.contains("192.0.2.9\tdb.test\n") && hosts.contains("2001:db8::1\tsix.test\n"), "{hosts}");
    assert_eq!(
        inside("cat /etc/resolv.conf"),
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch lan.test\n"
    );
    // Of commands, of those of other users, and of the main process.
    assert_eq!(inside("ulimit -n; ulimit -Hn; ulimit -c"), "100\n200\nunlimited\n");
    assert_eq!(home.run(&["exec", "-u", "1234", "opts", "sh", "-c", "ulimit -Hn"]).ok(), "200\n");
    let main = inside(
        "for p in /proc/[0-9]*; do grep -q '^sleep' $p/cmdline && grep 'open files' $p/limits; done; true",
    );
    assert_eq!(main.split_whitespace().collect::<Vec<_>>(), ["Max", "open", "files", "100", "200", "files"]);
    assert_eq!(
        inside("cd /proc/sys; cat net/core/somaxconn vm/max_map_count net/ipv4/ip_local_port_range"),
        "77\n262144\n2000\t3000\n"
    );

    processes_are_listed(&home);
    exposed_ports_are_published(&home);

    // A clone has the same, and a parameter that the kernel does not know keeps a box from running without it.
    home.run(&["create", "--name", "odd", "--sysctl", "net.no.such=1", &image, "true"]).ok();
    let refused = home.run(&["start", "-a", "odd"]).refused("net/no/such");
    assert!(refused.contains("No such file"), "{refused}");
    home.run(&["clone", "--name", "odd-too", "odd"]).ok();
    assert_eq!(inspect(&home, "odd-too")["options"]["sysctls"], serde_json::json!(["net.no.such=1"]));
}

fn processes_are_listed(home: &Home) {
    home.run(&["exec", "-d", "-u", "1234", "opts", "sleep", "4321"]).ok();
    let listed = home.run(&["top", "opts"]).ok();
    let mut lines = listed.lines();
    assert!(lines.next().unwrap().starts_with("UID"), "{listed}");
    assert!(listed.contains("sleep infinity") && !listed.contains("kthreadd"), "{listed}");
    let other = lines.find(|line| line.ends_with("sleep 4321")).unwrap_or_else(|| panic!("{listed}"));
    assert!(other.starts_with("1234 "), "{listed}");
    let chosen = home.run(&["top", "opts", "-o", "pid,comm"]).ok();
    let pid = other.split_whitespace().nth(1).unwrap();
    assert!(chosen.lines().any(|line| line.split_whitespace().eq([pid, "sleep"])), "{chosen}");
    let json = home.run(&["top", "--format", "json", "opts"]).json();
    assert!(
        json["processes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["command"] == "sleep 4321" && it["uid"] == 1234)
    );
    home.run(&["top", "opts", "--forest"]).refused("--forest");
    home.run(&["top", "nobody"]).refused("nobody");
    home.run(&["pause", "opts"]).ok();
    home.run(&["top", "opts"]).refused("paused");
    home.run(&["unpause", "opts"]).ok();
}

fn exposed_ports_are_published(home: &Home) {
    let changes = ["-c", "EXPOSE 80 53/udp 9000", "-c", "CMD [\"sleep\", \"infinity\"]"];
    home.run(&[&["commit"], &changes[..], &["opts", "exposing"]].concat()).ok();
    home.run(&["rm", "-f", "opts"]).ok();
    home.run(&["run", "-d", "--name", "public", "-P", "-p", "127.0.0.1::80", "exposing"]).ok();
    let shown = home.run(&["port", "public"]).ok();
    let mut boxes_ports: Vec<&str> = shown.lines().filter_map(|line| line.split(" -> ").next()).collect();
    boxes_ports.sort_unstable();
    assert_eq!(boxes_ports, ["53/udp", "80/tcp", "9000/tcp"], "{shown}");
    assert!(shown.lines().all(|line| line.contains("-> 127.0.0.1:") && !line.ends_with(":0")), "{shown}");
    home.run(&["rm", "-f", "public"]).ok();
}

#[test]
fn a_fraction_of_a_processor_is_a_limit_of_its_time() {
    let Some(home) = Home::able() else { return };
    let begun =
        home.run(&["run", "-d", "--name", "half", "--cpus", "0.5", &home.image("mini"), "sleep", "infinity"]);
    let (id, said) = (begun.text().trim().to_owned(), begun.err.clone());
    begun.ok();
    let options = inspect(&home, "half")["options"].clone();
    assert_eq!((&options["cpus"], &options["cpu_limit"]), (&1.into(), &50.into()));
    assert_eq!(home.run(&["exec", "half", "nproc"]).ok(), "1\n");
    match group_limit(&id) {
        Some((quota, period)) => assert_eq!(quota * 2, period),
        None => assert!(said.contains("may take more processor time than 50 %"), "{said}"),
    }
    home.run(&["update", "--cpus", "1", "half"]).refused("stop it first");
    home.run(&["stop", "-t", "0", "half"]).ok();
    home.run(&["update", "--cpus", "1", "half"]).ok();
    assert_eq!(inspect(&home, "half")["options"]["cpu_limit"], serde_json::Value::Null);
}

/// Quota and period of the control group of the box, where it has one.
fn group_limit(id: &str) -> Option<(u64, u64)> {
    let read = |path: String| std::fs::read_to_string(path).ok();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter_map(|line| line.split(' ').nth(1)).find_map(|root| {
        let group = format!("{root}/boxlite/{id}");
        let text = read(format!("{group}/cpu.max")).or_else(|| {
            Some(
                read(format!("{group}/cpu.cfs_quota_us"))?
                    + " "
                    + &read(format!("{group}/cpu.cfs_period_us"))?,
            )
        })?;
        let mut figures = text.split_whitespace().map(|figure| figure.parse().ok());
        Some((figures.next()??, figures.next()??))
    })
}

#[test]
fn what_no_box_can_have_is_refused_before_anything_is_pulled() {
    let home = Home::bare();
    let nowhere = "127.0.0.1:1/nobody/listens:latest";
    for (options, part) in [
        ("--cpus 200", "this host has"),
        ("--cpus 0.01", "0.05 to 255"),
        ("--cpus 1.555", "two digits"),
        ("--add-host db", "expected NAME:IP"),
        ("--add-host db:10.0", "host-gateway"),
        ("--add-host h:host-gateway --network none", "--network none"),
        ("--allow-host 0", "0 is not in"),
        ("--allow-host 80 --allow-host 80", "a second time"),
        ("--allow-host 80 --network none", "--network none"),
        ("--dns ::1", "no IPv6"),
        ("--dns 127.0.0.53", "no box reaches loopback"),
        ("--dns 10.0.2.2", "no box reaches loopback"),
        ("--dns 192.0.2.1 --allow-net a.example", "own name server"),
        ("--dns-search a..b", "not a domain"),
        ("--ulimit files=1", "none of as, core"),
        ("--ulimit nofile=9:8", "above the hard"),
        ("--sysctl kernel", "expected NAME=VALUE"),
        ("--sysctl ../x=1", "is not one such as"),
        ("-h under/score", "is not a host name"),
        ("-w relative", "not an absolute path"),
        ("-m 512", "512m are 512 MiB"),
        ("-P --network none", "--publish-all"),
    ] {
        let line: Vec<&str> = ["create"].into_iter().chain(options.split_whitespace()).collect();
        let refused = home.run(&[&line[..], &[nowhere]].concat()).refused(part);
        assert!(!refused.contains("registry"), "{options}: {refused}");
    }
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

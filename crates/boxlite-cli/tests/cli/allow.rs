//! `--allow-net`: checked before anything is pulled, kept with the box, and shown by `inspect`.

use crate::home::Home;

// Mutation tried: checking after the pull names the registry instead, and fails here.
#[test]
fn a_malformed_list_is_refused_before_anything_is_pulled() {
    let home = Home::bare();
    let nowhere = "127.0.0.1:1/nobody/listens:latest";
    for (rule, part) in [
        ("http://a.example", "is not a"),
        ("a.example:0", "is not a port"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("*", "is not a name"),
        ("[2001:db8::1]:443", "no IPv6"),
        ("dns.example:53", "a name server is allowed by its address"),
        ("127.0.0.1", "no box reaches loopback"),
        ("169.254.169.254:80", "metadata"),
    ] {
        let refused = home.run(&["create", "--allow-net", rule, nowhere]).refused(part);
        assert!(refused.contains("allowed destination"), "{refused}");
    }
    let both = home.run(&["create", "--network", "none", "--allow-net", "a.example", nowhere]);
    let refused = both.refused("a box without a network has no allowed destinations");
    assert!(refused.contains("leave out either --network none or --allow-net"), "{refused}");
    assert_eq!(home.run(&["ls", "-aq"]).ok(), "");
}

/// What `inspect` shows of the box.
fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

// Mutation tried: a start that does not hand the list to the shim.
#[test]
fn a_list_stays_with_its_box_and_what_it_refuses_is_shown() {
    let Some(home) = Home::able() else { return };
    let list = ["a.example:443", "*.b.example", "198.51.100.0/24"];
    let rules = list.iter().flat_map(|rule| ["--allow-net", rule]);
    let image = home.image("mini");
    let line: Vec<&str> = ["run", "-d", "--name", "listed"].into_iter().chain(rules).collect();
    home.run(&[&line[..], &[&image, "sleep", "infinity"]].concat()).ok();
    for run in ["first", "second"] {
        let asked = home.run(&["exec", "listed", "busybox", "nslookup", "evil.test"]);
        assert!(asked.code() != Some(0), "{asked:?}");
        home.run(&["exec", "listed", "busybox", "ping", "-c", "1", "-W", "1", "192.0.2.7"]);
        let shown = inspect(&home, "listed");
        assert_eq!(shown["options"]["allow_net"], serde_json::json!(list), "{run}");
        let refusals = &shown["network_usage"]["refusals"];
        assert!(refusals["counts"]["name"].as_u64() > Some(0), "{refusals}");
        assert_eq!(refusals["latest"][0]["kind"], "ping", "{refusals}");
        assert_eq!(refusals["latest"][0]["destination"], "192.0.2.7", "{refusals}");
        assert_eq!(refusals["latest"][1]["destination"], "evil.test", "{refusals}");
        home.run(&["stop", "-t", "1", "listed"]).ok();
        home.run(&["start", "listed"]).ok();
    }
    home.run(&["stop", "-t", "1", "listed"]).ok();
    home.run(&["clone", "--name", "other", "listed"]).ok();
    assert_eq!(inspect(&home, "other")["options"]["allow_net"], serde_json::json!(list));
}

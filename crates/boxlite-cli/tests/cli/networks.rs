//! `--network NAME`: boxes of one network reach each other by name, and nobody else's.

use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::home::Home;

const SERVER: &str = include_str!("network_server.py");
const CLIENT: &str = include_str!("network_client.py");
const ATTACK: &str = include_str!("network_attack.py");

/// Starts a box that serves at ports 6000 and 7000.
fn serve(home: &Home, name: &str, options: &[&str]) {
    let image = home.image("python");
    let line = ["run", "-d", "--name", name];
    home.run(&[&line, options, &[&image, "python3", "-c", SERVER, name]].concat()).ok();
}

/// What the servers at `hosts` tell the box, a line each.
fn ask(home: &Home, name: &str, hosts: &[&str]) -> Vec<String> {
    let said = home.run(&[&["exec", name, "python3", "-c", CLIENT], hosts].concat()).ok();
    said.lines().map(str::to_owned).collect()
}

fn inspected(home: &Home, name: &str) -> Value {
    home.run(&["inspect", name]).json()[0].clone()
}

/// The address of a box in a network that it is a member of.
fn address_in(home: &Home, name: &str, network: &str) -> String {
    let shown = inspected(home, name);
    let memberships = shown["memberships"].as_array().unwrap();
    let found = memberships.iter().find(|it| it["network"] == network);
    found.unwrap_or_else(|| panic!("{shown}"))["address"].as_str().unwrap().to_owned()
}

fn connected(home: &Home, name: &str) -> u64 {
    inspected(home, name)["network_usage"]["peers"]["connected"].as_u64().unwrap()
}

#[test]
fn boxes_of_a_network_reach_each_other_by_name_and_nobody_else() {
    let Some(home) = Home::able() else { return };
    home.run(&["run", "--network", "back", &home.image("mini"), "true"])
        .refused("there is no network 'back'");
    home.run(&["network", "create", "--subnet", "10.77.1.0/24", "back"]).ok();
    home.run(&["network", "create", "--subnet", "10.77.2.0/24", "--internal", "front"]).ok();
    home.run(&["network", "create", "back"]).refused("there is a network 'back' already");
    home.run(&["network", "create", "--subnet", "10.77.0.0/16", "wide"]).refused("overlaps 10.77.1.0/24");
    let mini = home.image("mini");
    home.run(&["run", "--ip", "10.77.1.9", &mini, "true"]).refused("add --network NAME");
    home.run(&["run", "--network", "back", "--ip", "10.77.2.9", &mini, "true"]).refused("not 10.77.2.9");
    home.run(&["run", "--network", "front", "-p", "80", &mini, "true"]).refused("is internal");

    serve(&home, "db", &["--network", "back", "--network-alias", "postgres", "--ip", "10.77.1.50"]);
    serve(&home, "eve", &["--network", "back"]);
    serve(&home, "web", &["--network", "front"]);
    home.run(&["create", "--network", "back", "--ip", "10.77.1.50", &mini]).refused("box db has the address");

    // By name, both ways; by the names that Docker knows; and by ping.
    let id = inspected(&home, "db")["id"].as_str().unwrap().to_owned();
    let names = ["db", "postgres", "db.back", &id[..12], "10.77.1.50"];
    assert_eq!(ask(&home, "eve", &names), vec!["db 10.77.1.2"; names.len()]);
    assert_eq!(ask(&home, "db", &["eve", "db"]), ["eve 10.77.1.50", "db 10.77.1.50"]);
    home.run(&["exec", "db", "busybox", "ping", "-c", "1", "-w", "30", "eve"]).ok();
    let hosts = home.run(&["exec", "db", "busybox", "hostname", "-i"]).ok();
    assert_eq!(hosts.trim(), "10.77.1.50");

    // Neither a name nor an address leads into another network, and out of an internal one nothing does.
    let web = address_in(&home, "web", "front");
    assert_eq!(ask(&home, "web", &["web", "!db", "!10.77.1.50", "!10.0.2.2"])[1..], ["unreachable"; 3]);
    assert_eq!(ask(&home, "eve", &[&format!("!{web}")]), ["unreachable"]);
    a_box_of_both_is_no_way_between_them(&home, &web);

    // Root of a box speaks for others: only what it says for itself arrives.
    let said =
        home.run(&["exec", "eve", "python3", "-c", ATTACK, "10.77.1.2", "10.77.1.50", "10.77.1.7", &web]);
    assert_eq!(said.ok(), "fence\n");
    assert_eq!(ask(&home, "eve", &["db"]), ["db 10.77.1.2 10.77.1.2=mine 10.77.1.2=fence"]);
    assert_eq!(ask(&home, "web", &["web"]), [format!("web {web}")]);
    let peers = &inspected(&home, "eve")["network_usage"]["peers"];
    assert!(peers["refused"].as_u64() >= Some(9), "{peers}");
    assert_eq!(inspected(&home, "db")["network_usage"]["peers"]["refused"], 0, "eve's own shim stops it");

    // A box that is killed is gone for the others, who go on; it comes back under its name and address.
    let (qemu, shim) = Home::processes(&id).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    until(TEST_TIMEOUT, "eve notices", || connected(&home, "eve") == 0);
    until(TEST_TIMEOUT, "QEMU ends", || {
        !std::path::Path::new(&format!("/proc/{}", qemu.as_raw_nonzero())).exists()
    });
    assert_eq!(ask(&home, "eve", &["eve"]), ["eve 10.77.1.2"]);
    home.run(&["start", "db"]).ok();
    assert_eq!(ask(&home, "eve", &["postgres"]), ["db 10.77.1.2"]);
    home.run(&["stop", "-t", "0", "eve"]).ok();
    home.run(&["start", "eve"]).ok();
    assert_eq!(ask(&home, "db", &["eve"]), ["eve 10.77.1.50"]);

    let shown = home.run(&["network", "inspect", "back"]).json()[0].clone();
    let members: Vec<_> =
        shown["boxes"].as_array().unwrap().iter().map(|it| (&it["name"], &it["running"])).collect();
    assert_eq!(members, [(&"db".into(), &true.into()), (&"eve".into(), &true.into())], "{shown}");
    home.run(&["network", "rm", "back"]).refused("is used by box db, eve");
    home.run(&["gc", "--all"]).ok();
    assert_eq!(home.run(&["network", "ls", "-q"]).ok(), "back\nfront\n");
    home.run(&["rm", "-f", "web"]).ok();
    assert_eq!(home.run(&["network", "prune", "-f"]).ok(), "removed network front\n");
    home.run(&["rm", "-f", "db", "eve"]).ok();
    assert_eq!(std::fs::read_dir(home.path().join("networks/back/members")).unwrap().count(), 0);
    assert_eq!(home.run(&["network", "rm", "back"]).ok(), "back\n");
    home.run(&["network", "rm", "back"]).refused("there is no network 'back'");
}

/// A box of `back` and `front`, where db and eve, and web under that address, run. It leaves and joins networks while it rests.
fn a_box_of_both_is_no_way_between_them(home: &Home, web: &str) {
    let mini = home.image("mini");
    let two = ["run", "--network", "back", "--network", "front"];
    home.run(&[&two[..], &["--ip", "10.77.1.9", &mini, "true"]].concat())
        .refused("--network NAME:ip=10.77.1.9");
    home.run(&[&two[..], &["--network", "back", &mini, "true"]].concat()).refused("named twice");
    home.run(&[&two[..], &["--network", "user", &mini, "true"]].concat()).refused("stand alone");
    let front = ["--network", "name=front,ip=10.77.2.77,alias=inner"];
    serve(home, "mid", &[&["--network", "back", "--network-alias", "middle"][..], &front].concat());
    let back = address_in(home, "mid", "back");
    assert_eq!(address_in(home, "mid", "front"), "10.77.2.77");

    // It reaches both from its address there, and both reach it, by the names that it has there.
    assert_eq!(ask(home, "mid", &["db", "web"]), [format!("db {back}"), "web 10.77.2.77".into()]);
    assert_eq!(ask(home, "eve", &["mid", "middle"]), ["mid 10.77.1.2"; 2]);
    assert_eq!(ask(home, "web", &["mid.front", "middle", "inner"]), vec![format!("mid {web}"); 3]);
    assert_eq!(connected(home, "mid"), 3);
    let shown = home.run(&["exec", "mid", "cat", "/etc/hosts", "/proc/net/route"]).ok();
    assert!(shown.contains(&format!("\n{back}\t")) && shown.contains("\n10.77.2.77\t"), "{shown}");
    assert!(shown.contains("eth0\t00000000\t0202000A"), "one of its networks leads outside: {shown}");

    // Though it forwards, and a member of one network sends what is for the other by it, nothing comes through.
    home.run(&["exec", "mid", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]).ok();
    home.run(&["exec", "eve", "busybox", "ip", "route", "add", "10.77.2.0/24", "via", &back]).ok();
    assert_eq!(ask(home, "eve", &[&format!("!{web}"), "!10.77.2.77"]), ["unreachable"; 2]);
    home.run(&["exec", "web", "busybox", "ip", "route", "add", "10.77.1.0/24", "via", "10.77.2.77"]).ok();
    assert_eq!(ask(home, "web", &["!10.77.1.50", &format!("!{back}")]), ["unreachable"; 2]);

    for change in [
        &["network", "disconnect", "front", "mid"][..],
        &["network", "connect", "back", "web"],
        &["update", "--network", "user", "mid"],
    ] {
        home.run(change).refused("joins and leaves networks only while it does not: stop it first");
    }
    home.run(&["stop", "-t", "0", "mid"]).ok();
    home.run(&["network", "connect", "back", "mid"]).refused("is in network 'back' already");
    home.run(&["network", "disconnect", "wide", "mid"]).refused("is not in network 'wide'");
    home.run(&["network", "connect", "wide", "mid"]).refused("there is no network 'wide'");
    home.run(&["network", "disconnect", "back", "mid"]).ok();
    home.run(&["network", "disconnect", "front", "mid"]).refused("would reach the world outside without it");
    home.run(&["update", "-p", "7000", "mid"]).refused("is internal");
    home.run(&["network", "connect", "--ip", "10.77.1.50", "back", "mid"]).refused("box db has the address");
    home.run(&["network", "connect", "--ip", "10.77.1.60", "--alias", "again", "back", "mid"]).ok();
    home.run(&["update", "--network", "back:alias=again", "--network", "front", "mid"]).ok();
    let addresses = ["back", "front"].map(|network| address_in(home, "mid", network));
    assert_eq!(addresses, ["10.77.1.60", "10.77.2.77"], "it keeps those that it has");
    home.run(&["start", "mid"]).ok();
    assert_eq!(ask(home, "eve", &["again"]), ["mid 10.77.1.2"]);
    assert_eq!(ask(home, "mid", &["web"]), ["web 10.77.2.77"]);

    home.run(&["stop", "-t", "0", "mid"]).ok();
    home.run(&["clone", "--name", "twin", "mid"]).ok();
    let addresses = ["back", "front"].map(|network| address_in(home, "twin", network));
    assert_eq!(addresses, [back.as_str(), "10.77.2.3"], "a clone has addresses of its own");
    home.run(&["update", "--network", "none", "twin"]).ok();
    home.run(&["network", "connect", "back", "twin"]).refused("without a network card");
    home.run(&["rm", "mid", "twin"]).ok();
}

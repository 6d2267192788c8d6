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
    let web = inspected(&home, "web")["membership"]["address"].as_str().unwrap().to_owned();
    assert_eq!(ask(&home, "web", &["web", "!db", "!10.77.1.50", "!10.0.2.2"])[1..], ["unreachable"; 3]);
    assert_eq!(ask(&home, "eve", &[&format!("!{web}")]), ["unreachable"]);

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

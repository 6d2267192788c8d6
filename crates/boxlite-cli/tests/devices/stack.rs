//! The process of the user-mode network: what it may do, what it holds a guest to, and with whom it dies.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddrV4, TcpListener};
use std::path::Path;

use boxlite_testkit::deadline;
use boxlite_vm::shim::Launched;
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::ground;
use crate::network::TIMEOUT;
use crate::outside::{Outside, tcp_echo};

fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The process id of a box's user-mode network: the shim's program in a jail beside QEMU's.
fn stack_of(launched: Launched) -> u32 {
    let jailed: Vec<u32> = children(launched.shim_pid).into_iter().flat_map(children).collect();
    let is_stack = |pid: &&u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(14).any(|part| part == b"boxlite-stack\0")
    };
    let stacks: Vec<&u32> = jailed.iter().filter(is_stack).collect();
    assert_eq!(stacks.len(), 1, "{jailed:?}");
    *stacks[0]
}

/// What the descriptors of a process lead to.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    entries.filter_map(|entry| target(entry.unwrap())).map(|path| path.display().to_string()).collect()
}

/// The host's sockets that belong to a network, as descriptors show them.
fn network_sockets() -> HashSet<String> {
    let tables = ["tcp", "udp", "icmp", "raw", "tcp6", "udp6"];
    let lines = tables.iter().flat_map(|table| {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?))).collect()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

fn field(pid: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_network_has_the_sockets_and_qemu_has_none_and_both_die_with_the_shim() {
    let Some(ground) = ground() else { return };
    let mut guest = ground.new_box(Some(&["80", "53/udp"]), &[]);
    guest.up().await;
    let launched = guest.launched();
    let stack = stack_of(launched);

    let sockets = network_sockets();
    let of_network = |pid| descriptors(pid).into_iter().filter(|to| sockets.contains(to)).count();
    assert_eq!(of_network(launched.vm_pid), 0, "{:?}", descriptors(launched.vm_pid));
    assert_eq!(of_network(stack), 2, "{:?}", descriptors(stack));
    let files: Vec<_> =
        descriptors(stack).into_iter().filter(|to| to.starts_with('/') && to != "/dev/null").collect();
    assert!(files.is_empty(), "{files:?}");

    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(stack, "status", set), "0000000000000000", "{set}");
    }
    assert_eq!(field(stack, "status", "NoNewPrivs:"), "1");
    let most = boxlite_vm::net::MAX_CONNECTIONS + 2 + 64;
    assert_eq!(field(stack, "limits", "Max open files"), most.to_string());
    assert_eq!(field(stack, "limits", "Max file size"), "0");
    assert_eq!(fs::read(format!("/proc/{stack}/environ")).unwrap(), b"LC_ALL=C\0");
    // What it sees of the host's files: its libraries, and who answers questions about names.
    let root = Path::new("/proc").join(stack.to_string()).join("root");
    let names = fs::read_dir(root.join("etc")).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| name != "ld.so.cache" && name != "resolv.conf").collect();
    assert!(strange.is_empty() && !root.join("proc").exists(), "{strange:?}");

    kill(launched.shim_pid);
    deadline::until(TIMEOUT, "the network and QEMU to die", || {
        !is_alive(stack) && !is_alive(launched.vm_pid)
    });
    deadline::until(TIMEOUT, "the lock to be free", || guest.lock_is_free());
}

#[tokio::test]
async fn a_box_whose_network_dies_runs_on_and_says_so() {
    let Some(ground) = ground() else { return };
    let mut guest = ground.new_box(Some(&[]), &[]);
    guest.up().await;
    kill(stack_of(guest.launched()));
    let says_so = || guest.shim_log().contains("the user-mode network of the box ended (signal: 9");
    deadline::until(TIMEOUT, "the log to say so", says_so);
    assert_eq!(guest.python("print('still here')", &[]).await, "still here\n");
    guest.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_counted_and_free_again_once_closed() {
    let Some(ground) = ground() else { return };
    let outside = Outside::new();
    let any = SocketAddrV4::new(outside.address, 0);
    let server = tcp_echo(outside.inside(|| TcpListener::bind(any)).unwrap());
    let mut guest = ground.new_box(Some(&[]), &[]);
    guest.spec.network.as_mut().unwrap().max_connections = 20;
    guest.up().await;

    let arguments = [outside.address.to_string(), server.port().to_string()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = guest.python(include_str!("connections.py"), &arguments).await;
    assert_eq!(said, "20 open, 20 refused\n20 open, 0 refused\n");
    let usage = guest.client().status().await.unwrap().unwrap().network.unwrap();
    assert_eq!((usage.max_connections, usage.refused_connections), (20, 20));
    assert!(usage.connections <= 20, "{usage:?}");
    assert!(Path::new(&format!("/proc/{}", stack_of(guest.launched()))).exists());
    guest.stop().await;
}

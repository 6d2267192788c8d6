//! Connections that break, servers that die, readers that sleep.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::{Output, noise};
use rustix::process::{Pid, Signal};
use sha2::{Digest, Sha256};

use crate::home::Home;
use crate::proxy::Proxy;

/// Mutation tried: see the comments in `boxlite`'s `runtime/rest/tests/executions.rs`.
#[test]
fn a_connection_that_is_cut_is_made_again_and_nothing_is_lost() {
    let Some(home) = Home::able() else { return };
    home.sleeper("far");
    let proxy = Proxy::to(home.reach().address());
    let data = noise(10 << 20);
    let sum = Sha256::digest(&data);
    let ended = AtomicBool::new(false);
    let (output, cuts) = thread::scope(|scope| {
        let cutting = scope.spawn(|| {
            let mut cuts = 0;
            let mut next = 1 << 20;
            while !ended.load(Ordering::Relaxed) && cuts < 6 {
                if proxy.passed() > next {
                    proxy.cut();
                    next = proxy.passed() + (2 << 20);
                    cuts += 1;
                }
                thread::sleep(Duration::from_millis(5));
            }
            cuts
        });
        let output = home.run_with(&["--url", &proxy.url(), "exec", "-i", "far", "cat"], data);
        ended.store(true, Ordering::Relaxed);
        (output, cutting.join().unwrap())
    });
    assert_eq!((output.code(), output.err.as_str()), (Some(0), ""), "after {cuts} cuts");
    assert_eq!((output.out.len(), Sha256::digest(&output.out)), (10 << 20, sum), "after {cuts} cuts");
    assert!(cuts >= 3, "{cuts} cuts");
}

#[test]
fn a_server_that_is_killed_tells_no_exit_status() {
    let Some(home) = Home::able() else { return };
    home.sleeper("orphan");
    let waiting = home.start(&["wait", "orphan"]);
    let following = home.start(&["logs", "-f", "orphan"]);
    let mut running = home.command(["exec", "orphan", "sh", "-c", "echo begun; sleep 1000"]).spawn().unwrap();
    let mut begun = [0; 6];
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut begun).unwrap();
    home.reach().signal(Signal::KILL);
    for child in [waiting, following, running] {
        let error = Output::of(child).refused(&home.reach().url());
        assert!(error.contains("hint: "), "{error}");
    }
    // The box has not noticed.
    home.run(&["--home", home.path().to_str().unwrap(), "exec", "orphan", "true"]).ok();
    home.run(&["--home", home.path().to_str().unwrap(), "rm", "-f", "orphan"]).ok();
}

fn highest_memory(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Mutation tried: with output acknowledged as it arrives, the client holds all of it.
#[test]
fn a_reader_that_sleeps_holds_the_command_up_and_not_the_memory() {
    let Some(home) = Home::able() else { return };
    home.sleeper("source");
    let before = highest_memory(home.reach().pid());
    let script = "head -c 120000000 /dev/zero; echo all >/tmp/written";
    let mut child =
        home.command(["exec", "source", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(4));
    let written = home.run(&["exec", "source", "cat", "/tmp/written"]);
    assert_ne!(written.code(), Some(0), "the command is held up");
    let (client, server) = (highest_memory(Pid::from_child(&child)), highest_memory(home.reach().pid()));
    assert!(client < 64 << 20 && server < before + (32 << 20), "{client} and {before} to {server} bytes");
    let stdout = child.stdout.take().unwrap();
    let counted = std::process::Command::new("wc").arg("-c").stdin(stdout).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "120000000");
    assert_eq!(Output::of(child).code(), Some(0));
}

/// Locally a command goes on when its client is killed; here too, and nobody has to wait for it.
#[test]
fn a_detached_command_writes_on_although_nobody_reads() {
    let Some(home) = Home::able() else { return };
    home.sleeper("box");
    let script = "head -c 5000000 /dev/zero; echo done >/tmp/done";
    home.run(&["exec", "-d", "box", "sh", "-c", script]).ok();
    eventually("the command to have written", || {
        (home.run(&["exec", "box", "cat", "/tmp/done"]).text() == "done\n").then_some(())
    });
}

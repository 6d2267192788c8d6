//! Processes that are killed without warning.

use std::time::{Duration, Instant};

use boxlite_home::durable::Lock;
use boxlite_testkit::deadline;
use boxlite_vm::shim::{MainLog, OutcomeCause, wait_until_gone};
use futures::StreamExt;

use crate::bench::{bench, shell};
use crate::ground::read_all;

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The state letter, parent and session of a process, if there is one.
fn stat(pid: u32) -> Option<(String, u32, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[0].to_owned(), fields[1].parse().ok()?, fields[3].parse().ok()?))
}

/// Whether a process that does anything has this id.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, ..)| state != "Z")
}

/// Waits until nothing of the process is left: its locks go an instant before its id does.
async fn until_dead(pid: u32) {
    let limit = Duration::from_secs(20);
    deadline::within_async(limit, "the process to be gone", async || (!is_alive(pid)).then_some(())).await;
}

/// Mutation tried: without the parent-death signal QEMU stays, the lock with it, and this times out.
#[tokio::test]
async fn killing_the_shim_takes_qemu_along_and_frees_the_lock() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(None);
    let launched = guest.start();
    assert!(guest.client().wait_up().await.unwrap());
    assert!(Lock::try_exclusive(&guest.paths.shim_lock()).unwrap().is_none());
    let (_, parent, session) = stat(launched.shim_pid).unwrap();
    assert_ne!(parent, std::process::id(), "the shim does not hang on its starter");
    assert_eq!(session, launched.shim_pid, "it has a session of its own");
    kill(launched.shim_pid);
    tokio::time::timeout(Duration::from_secs(20), wait_until_gone(&guest.paths)).await.unwrap().unwrap();
    until_dead(launched.vm_pid).await;
    assert_eq!(guest.outcome().await, None, "a killed shim publishes nothing");
    assert!(guest.client().status().await.unwrap().is_none());
    assert_eq!(guest.client().exec(shell("true")).await.unwrap_err().kind(), boxlite::ErrorKind::Conflict);
    // The next run starts over what was left behind.
    guest.start();
    assert!(guest.client().wait_up().await.unwrap());
    guest.client().stop(None, 0).await.unwrap();
    assert_eq!(guest.outcome().await.unwrap().end, OutcomeCause::Stopped);
}

#[tokio::test]
async fn killing_qemu_is_noticed_and_published() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("echo up; sleep 1000"));
    let launched = guest.start();
    let mut attached = guest.client().attach(Some(0), false, None).await.unwrap();
    assert_eq!(&attached.output.next().await.unwrap().unwrap().bytes[..], b"up\n");
    let begun = Instant::now();
    kill(launched.vm_pid);
    assert!(attached.control.wait().await.is_err());
    let outcome = guest.outcome().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(
        matches!(&outcome.end, OutcomeCause::VmCrashed { reason } if reason.contains("signal 9")),
        "{outcome:?}"
    );
    assert_eq!((outcome.main, outcome.exit_code()), (None, None));
    until_dead(launched.shim_pid).await;
    until_dead(launched.vm_pid).await;
}

/// Before, without a deadline of the whole sequence, such a stop took 66 s.
#[tokio::test]
async fn a_stop_kills_a_qemu_that_hangs_and_publishes_the_loss() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("sleep 1000"));
    let launched = guest.start();
    assert!(guest.client().wait_up().await.unwrap());
    let pid = rustix::process::Pid::from_raw(launched.vm_pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let begun = Instant::now();
    guest.client().stop(None, 100).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let outcome = guest.outcome().await.unwrap();
    assert_eq!(
        (&outcome.end, outcome.main, outcome.exit_code()),
        (&OutcomeCause::Unflushed, None, Some(137))
    );
}

#[tokio::test]
async fn a_guest_that_panics_is_a_crash_with_words_on_the_console() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("echo c > /proc/sysrq-trigger; sleep 1000"));
    guest.start();
    let outcome = guest.outcome().await.unwrap();
    assert!(
        matches!(&outcome.end, OutcomeCause::VmCrashed { reason } if reason.contains("panicked")),
        "{outcome:?}"
    );
    assert!(guest.console().contains("Kernel panic"), "{}", guest.console());
}

#[tokio::test]
async fn a_kernel_that_cannot_boot_is_a_boot_failure() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("true"));
    std::fs::write(&guest.spec.overlay, vec![0; 1 << 20]).unwrap();
    guest.start();
    assert!(!guest.client().wait_up().await.unwrap());
    let outcome = guest.outcome().await.unwrap();
    let words = outcome.failure().unwrap_or_default();
    assert!(matches!(outcome.end, OutcomeCause::BootFailed { .. }), "{outcome:?}");
    assert!(words.contains("Image is not in qcow2 format"), "QEMU's own words are passed on: {words}");
}

#[tokio::test]
async fn a_disk_that_is_missing_refuses_the_start() {
    let Some(bench) = bench() else { return };
    let mut guest = bench.new_box(Some("true"));
    guest.spec.overlay = guest.paths.root().join("disks/missing.qcow2");
    let error = guest.try_start().unwrap_err();
    assert!(error.to_string().contains("missing.qcow2"), "{error}");
    boxlite_testkit::deadline::eventually("the lock to be free", || guest.lock_is_free().then_some(()));
}

#[tokio::test]
async fn a_program_that_does_not_exist_ends_the_box_with_127() {
    let Some(bench) = bench() else { return };
    let mut guest = bench.new_box(Some("true"));
    guest.spec.main.as_mut().unwrap().argv = vec!["/bin/nonesuch".into()];
    guest.start();
    let outcome = guest.outcome().await.unwrap();
    assert_eq!(outcome.exit_code(), Some(127), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_the_box_running() {
    let Some(bench) = bench() else { return };
    // 3 MB of output that nobody reads at first, far more than all windows and queues hold.
    let guest = bench.new_box(Some("yes 0123456 | head -c 3000000; sleep 1; echo done"));
    guest.start();
    let client = guest.client();
    let stalled = client.attach(Some(0), false, None).await.unwrap();
    let mut endless = client.exec(shell("yes")).await.unwrap();
    assert!(endless.output.next().await.unwrap().unwrap().bytes.starts_with(b"y\n"));
    drop(endless);
    let mut exec = client.exec(shell("echo still here")).await.unwrap();
    assert_eq!(read_all(&mut exec).await.0, b"still here\n");
    drop(stalled);
    let mut late = client.attach(Some(0), false, None).await.unwrap();
    let (out, _) = read_all(&mut late).await;
    assert_eq!(out.len(), 3_000_005);
    assert!(out.ends_with(b"0123456\ndone\n") || out.ends_with(b"done\n"));
    let outcome = guest.outcome().await.unwrap();
    assert_eq!(outcome.end, OutcomeCause::MainExited);
    let logged: Vec<u8> =
        MainLog::open(&guest.paths.main_log()).unwrap().flat_map(|r| r.unwrap().bytes).collect();
    assert!(logged == out, "the log holds what was read: {} and {} bytes", logged.len(), out.len());
}

#[tokio::test]
async fn a_main_process_that_ignores_the_signal_is_killed_after_the_timeout() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("trap '' TERM; echo up; while true; do sleep 1; done"));
    guest.start();
    let mut attached = guest.client().attach(Some(0), false, None).await.unwrap();
    assert_eq!(&attached.output.next().await.unwrap().unwrap().bytes[..], b"up\n");
    let begun = Instant::now();
    guest.client().stop(None, 1500).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    let outcome = guest.outcome().await.unwrap();
    assert_eq!(outcome.end, OutcomeCause::Stopped);
    assert_eq!(outcome.exit_code(), Some(137));
    assert!(outcome.flushed);
}

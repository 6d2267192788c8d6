//! Starting, running, ending.

use std::time::{Duration, Instant};

use boxlite_home::admission::Claims;
use boxlite_proto::ProcessExit;
use boxlite_vm::shim::{MainLog, OutcomeCause};

use crate::bench::{bench, shell};
use crate::ground::read_all;

#[tokio::test]
async fn the_main_process_is_heard_and_its_status_published() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(Some("echo out; echo err >&2; exit 7"));
    let begun = Instant::now();
    guest.start();
    eprintln!("spawn returned after {:?}", begun.elapsed());
    let mut attached = guest.client().attach(Some(0), false, None).await.unwrap();
    let (out, err) = read_all(&mut attached).await;
    assert_eq!(attached.control.wait().await.unwrap().code, 7, "{}", guest.shim_log());
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    eprintln!("main exited after {:?}", begun.elapsed());
    let outcome = guest.outcome().await.expect("an outcome");
    eprintln!("gone after {:?}\n{}", begun.elapsed(), guest.shim_log());
    assert_eq!(outcome.end, OutcomeCause::MainExited);
    assert_eq!(outcome.main, Some(ProcessExit::Code(7)));
    assert!(outcome.flushed);
    assert!(guest.lock_is_free());
    assert!(!guest.paths.socket().exists());
    let logged: Vec<u8> =
        MainLog::open(&guest.paths.main_log()).unwrap().flat_map(|r| r.unwrap().bytes).collect();
    assert_eq!(logged.len(), 8);
}

#[tokio::test]
async fn a_box_without_a_main_process_serves_execs_until_it_is_stopped() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(None);
    let claims = Claims::open(&bench.home).unwrap();
    let claim = claims.take(64 << 20).unwrap();
    let range = claim.range();
    guest.start_with(Some(claim));
    let is_reserved = || claims.live().unwrap().iter().any(|live| live.start == range.start);
    let client = guest.client();
    assert!(client.wait_up().await.unwrap(), "{}", guest.shim_log());
    assert!(is_reserved(), "the shim keeps the claim that its starter has let go of");
    let mut exec = client.exec(shell("echo hello; exit 3")).await.unwrap();
    let (out, _) = read_all(&mut exec).await;
    assert_eq!(out, b"hello\n");
    assert_eq!(exec.control.wait().await.unwrap().code, 3);
    let begun = Instant::now();
    let mut exec = client.exec(shell("true")).await.unwrap();
    read_all(&mut exec).await;
    eprintln!("a warm exec took {:?}", begun.elapsed());
    client.stop(None, 1000).await.unwrap();
    let outcome = guest.outcome().await.unwrap();
    assert_eq!((outcome.end, outcome.main, outcome.flushed), (OutcomeCause::Stopped, None, true));
    assert!(client.status().await.unwrap().is_none());
    assert!(!is_reserved(), "a claim does not outlive its box");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

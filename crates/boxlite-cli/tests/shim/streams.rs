//! Bytes to and from the guest: large, binary, in order, and both ways at once.

use std::process::Command;

use boxlite_proto::WinSize;
use boxlite_testkit::program::{noise, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{bench, shell};
use crate::ground::read_all;

#[tokio::test]
async fn several_large_binary_streams_pass_at_once_unharmed() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(None);
    guest.start();
    let client = guest.client();
    let mut echoes = Vec::new();
    for length in [0, 1, 5_000_000, 3_000_001] {
        let mut spec = shell("cat");
        spec.stdin = true;
        let mut exec = client.exec(spec).await.unwrap();
        let mut stdin = exec.stdin.take().unwrap();
        echoes.push(async move {
            let sent = noise(length);
            let write = async {
                stdin.write_all(&sent).await.unwrap();
                stdin.shutdown().await.unwrap();
            };
            let ((), (out, err)) = tokio::join!(write, read_all(&mut exec));
            assert!(out == sent, "{} of {} bytes came back", out.len(), sent.len());
            assert!(err.is_empty());
            assert_eq!(exec.control.wait().await.unwrap().code, 0);
        });
    }
    futures::future::join_all(echoes).await;
    let mut tty = shell("stty size 2>/dev/null || echo none; exit 5");
    tty.tty = Some(WinSize { rows: 31, cols: 77 });
    let mut exec = client.exec(tty).await.unwrap();
    read_all(&mut exec).await;
    assert_eq!(exec.control.wait().await.unwrap().code, 5);
    client.stop(None, 0).await.unwrap();
}

#[tokio::test]
async fn archives_pass_both_ways_and_failures_are_told() {
    let Some(bench) = bench() else { return };
    let guest = bench.new_box(None);
    guest.start();
    let client = guest.client();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("things")).unwrap();
    std::fs::write(dir.path().join("things/noise"), noise(2_000_000)).unwrap();
    let tar = dir.path().join("in.tar");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-cf").arg(&tar).arg("things"));
    let archive = tokio::fs::File::open(&tar).await.unwrap();
    let copied = client.copy_in("/tmp", false, archive).await.unwrap();
    assert!(copied >= 2_000_000, "{copied}");
    assert_eq!(client.stat("/tmp/things/noise").await.unwrap().length, 2_000_000);
    let mut back = Vec::new();
    client.copy_out("/tmp/things", false).await.unwrap().read_to_end(&mut back).await.unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(dir.path().join("out.tar"), back).unwrap();
    run(Command::new("tar").arg("-C").arg(&out).arg("-xf").arg(dir.path().join("out.tar")));
    assert!(std::fs::read(out.join("things/noise")).unwrap() == noise(2_000_000));

    let missing = client.copy_out("/no/such/path", false).await.err().unwrap();
    assert_eq!(missing.kind(), boxlite::ErrorKind::NotFound, "{missing}");
    assert!(client.copy_in("/tmp", false, &b"this is no archive"[..]).await.is_err());
    assert_eq!(client.stat("/nowhere").await.unwrap_err().kind(), boxlite::ErrorKind::NotFound);
    assert!(client.metrics().await.unwrap().memory_total > 100 << 20);
    client.ping().await.unwrap();
    client.stop(None, 0).await.unwrap();
}

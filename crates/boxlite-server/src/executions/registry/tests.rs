use async_trait::async_trait;
use axum::response::IntoResponse;
use boxlite::{ExecutionControl, ExitStatus, OutputChunk, OutputStream, UnattendedPolicy, WindowSize};
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::super::execution::ServedProcess;
use super::*;

/// A command that runs until it is cancelled.
struct Sleeping(CancellationToken);

#[async_trait]
impl ExecutionControl for Sleeping {
    async fn signal(&self, _: i32) -> boxlite::Result<()> {
        Ok(())
    }

    async fn resize(&self, _: WindowSize) -> boxlite::Result<()> {
        Ok(())
    }

    async fn started(&self) -> boxlite::Result<bool> {
        Ok(true)
    }

    async fn wait(&self) -> boxlite::Result<ExitStatus> {
        self.0.cancelled().await;
        Ok(ExitStatus { code: 0, reason: None })
    }
}

/// A box as callers see it.
pub(crate) fn a_box(id: &str) -> BoxInfo {
    serde_json::from_value(serde_json::json!({
        "id": id, "name": "web", "image": "x", "image_digest": "x", "disk_digest": "x", "state": "running",
        "reason": null, "exit_code": null, "created_at": "2026-01-01T00:00:00Z", "started_at": null,
        "finished_at": null, "disk_allocated": null, "ports": [], "options": {},
    }))
    .unwrap()
}

/// Begins a command that writes `output` and ends when `end` is cancelled.
async fn begin(
    executions: &Executions,
    end: &CancellationToken,
    output: &'static [u8],
) -> Arc<ServedExecution> {
    let quiet = end.clone();
    let said = (!output.is_empty())
        .then(|| Ok(OutputChunk { stream: OutputStream::Stdout, bytes: Bytes::from_static(output) }));
    let output =
        futures::stream::once(async move { quiet.cancelled().await }).filter_map(|()| async { None });
    let output = Box::pin(futures::stream::iter(said).chain(output));
    let control = Arc::new(Sleeping(end.clone()));
    begin_of(executions, Execution { stdin: None, output, control }).await
}

async fn begin_of(executions: &Executions, execution: Execution) -> Arc<ServedExecution> {
    let permit = executions.take_permit().unwrap();
    let process = ServedProcess::Command { tty: false };
    let terms = ExecutionTerms { unattended: UnattendedPolicy::HangUp, limit: None, process };
    executions.begin(permit, &a_box("ab12"), execution, terms).await.unwrap().0
}

async fn ended(served: &ServedExecution) {
    while served.outcome().is_none() {
        tokio::task::yield_now().await;
    }
}

fn refused(executions: &Executions, now: Instant) {
    let refused = executions.take_permit_at(now).err().expect("a refusal").into_response();
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn as_many_commands_as_there_are_permits_and_not_one_more() {
    let executions = Executions::default();
    let (end, endless) = (CancellationToken::new(), CancellationToken::new());
    let first = begin(&executions, &end, b"").await;
    for _ in 2..MAX_EXECUTIONS {
        begin(&executions, &endless, b"").await;
    }
    let about_to_begin = executions.take_permit().unwrap();
    refused(&executions, Instant::now());
    drop(about_to_begin);
    begin(&executions, &endless, b"").await;
    refused(&executions, Instant::now());

    assert!(executions.find("web", &first.id).is_ok() && executions.find("ab", &first.id).is_ok());
    assert!(executions.find("other", &first.id).is_err() && executions.find("", &first.id).is_err());
    end.cancel();
    ended(&first).await;
    executions.take_permit().unwrap();
    assert_eq!(executions.running(), MAX_EXECUTIONS - 1);
}

#[tokio::test]
async fn only_output_that_stayed_unfetched_makes_room() {
    let executions = Executions::default();
    let (end, endless) = (CancellationToken::new(), CancellationToken::new());
    let light = begin(&executions, &end, b"").await;
    let heavy = begin(&executions, &end, b"output").await;
    end.cancel();
    ended(&light).await;
    ended(&heavy).await;
    for _ in 1..MAX_EXECUTIONS {
        begin(&executions, &endless, b"").await;
    }
    let now = Instant::now();
    let later = now + UNFETCHED_TIMEOUT + Duration::from_secs(1);
    refused(&executions, now);
    let attached = heavy.attach(false).await.unwrap();
    refused(&executions, later);
    drop(attached);
    refused(&executions, now);
    let _permit = executions.take_permit_at(later + Duration::from_secs(1)).unwrap();
    assert!(executions.find("web", &heavy.id).is_err());
    assert!(executions.find("web", &light.id).is_ok(), "its status is kept");
    refused(&executions, later + Duration::from_secs(1));
}

/// A command that records its signals; in a stuck box, sending one never ends.
#[derive(Default)]
struct Signalled {
    signals: Mutex<Vec<i32>>,
    under_way: Arc<()>,
    stuck: bool,
}

#[async_trait]
impl ExecutionControl for Signalled {
    async fn signal(&self, signal: i32) -> boxlite::Result<()> {
        let _under_way = Arc::clone(&self.under_way);
        self.signals.lock().unwrap().push(signal);
        if self.stuck {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn resize(&self, _: WindowSize) -> boxlite::Result<()> {
        Ok(())
    }

    async fn started(&self) -> boxlite::Result<bool> {
        Ok(true)
    }

    async fn wait(&self) -> boxlite::Result<ExitStatus> {
        std::future::pending().await
    }
}

/// Mutations tried: sending the signals one after the other sends none behind a stuck box; without their timeout, each
/// stuck signal stays for ever.
#[tokio::test(start_paused = true)]
async fn a_stuck_box_keeps_no_signal_from_others() {
    let executions = Executions::default();
    let controls: Vec<Arc<Signalled>> =
        (0..8).map(|n| Arc::new(Signalled { stuck: n % 2 == 0, ..Signalled::default() })).collect();
    for control in &controls {
        let output = Box::pin(futures::stream::empty());
        begin_of(&executions, Execution { stdin: None, output, control: Arc::clone(control) as _ }).await;
    }
    let begin = Instant::now();
    let mut last = begin;
    for (seconds, signals) in [(301, &[1][..]), (331, &[1, 15]), (361, &[1, 15, 9])] {
        let now = begin + Duration::from_secs(seconds);
        executions.reap(last, now);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for control in &controls {
            assert_eq!(*control.signals.lock().unwrap(), signals);
        }
        last = now;
    }
    assert_eq!(controls.iter().filter(|control| Arc::strong_count(&control.under_way) > 1).count(), 4);
    tokio::time::sleep(SIGNAL_TIMEOUT).await;
    assert!(controls.iter().all(|control| Arc::strong_count(&control.under_way) == 1));
}

use async_trait::async_trait;
use axum::response::IntoResponse;
use boxlite::{ExecStatus, ExecutionControl, WindowSize};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;

/// A command that runs until it is told to end.
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

    async fn wait(&self) -> boxlite::Result<ExecStatus> {
        self.0.cancelled().await;
        Ok(ExecStatus { code: 0, reason: None })
    }
}

async fn begin(executions: &Executions, end: &CancellationToken) -> Arc<Command> {
    let of: BoxInfo = serde_json::from_value(serde_json::json!({
        "id": "ab12", "name": "web", "image": "x", "image_digest": "x", "disk_digest": "x", "state": "running",
        "reason": null, "exit_code": null, "created_at": "2026-01-01T00:00:00Z", "started_at": null,
        "finished_at": null, "disk_allocated": null, "ports": [], "options": {},
    }))
    .unwrap();
    let quiet = end.clone();
    let output =
        futures::stream::once(async move { quiet.cancelled().await }).filter_map(|()| async { None });
    let control = Arc::new(Sleeping(end.clone()));
    let execution = Execution { stdin: None, output: Box::pin(output), control };
    executions.begin(&of, execution, Abandoned::HungUp, None).await.unwrap().0
}

/// Mutation tried: without the comparison with `MAX_COMMANDS`, the last one is taken on.
#[tokio::test]
async fn as_many_commands_as_there_is_room_for_and_not_one_more() {
    let executions = Executions::default();
    let (end, endless) = (CancellationToken::new(), CancellationToken::new());
    executions.check_room().unwrap();
    let first = begin(&executions, &end).await;
    for _ in 1..MAX_COMMANDS {
        executions.check_room().unwrap();
        begin(&executions, &endless).await;
    }
    let refused = executions.check_room().unwrap_err().into_response();
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));

    assert!(executions.find("web", &first.id).is_ok() && executions.find("ab", &first.id).is_ok());
    assert!(executions.find("other", &first.id).is_err() && executions.find("", &first.id).is_err());
    end.cancel();
    while first.outcome().is_none() {
        tokio::task::yield_now().await;
    }
    executions.check_room().unwrap();
    assert_eq!(executions.running(), MAX_COMMANDS - 1);
}

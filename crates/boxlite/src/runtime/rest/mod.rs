//! The backend that asks a server: every operation is one request of [`boxlite_types::wire`]'s native dialect.

mod box_file;
mod execution;
mod executions;
mod failure;
mod files;
mod http;
mod images;
mod lines;
mod networks;
mod older_servers;
mod options;
mod snapshots;
mod tunnels;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boxlite_storage::reference::Reference;
use boxlite_types::gc::{DiskTree, Explanation};
use boxlite_types::wire::{ExecutionCreated, KillRequest, LogEvent, RemoveQuery, ServerReadiness};
use boxlite_types::{
    Activity, Adoption, Allotment, BoxInfo, BoxOptions, CloneOptions, Consumption, Error, ErrorKind,
    EventOptions, EventPage, ExecOptions, Execution, ExitStatus, GcOptions, GcReport, GuestProcesses,
    HostInfo, ListOptions, LogLine, LogOptions, NodeCheck, ProgressSink, Purge, RemoveOptions, Result,
    StopOptions, UpdateOptions, Usage,
};
use futures::StreamExt;
use futures::stream;
use http::{HttpClient, as_json};
use lines::AnswerLines;
use reqwest::{Method, RequestBuilder};

use super::operations::{BoxLifecycle, BoxOperations, BoxProcesses, HostOperations, LogStream};

pub use options::RemoteOptions;

/// A home on another host, or on this one behind its server.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    client: HttpClient,
}

impl Remote {
    /// Asks the server nothing yet: the first request notices that it is not there.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self> {
        Ok(Self { client: HttpClient::new(options)? })
    }

    /// The server's URL, as messages name it.
    pub(super) fn server(&self) -> &str {
        self.client.server()
    }

    /// Asks whether a start would be admitted, and how much room there is.
    pub(super) async fn readiness(&self) -> Result<ServerReadiness> {
        self.client.readiness().await
    }

    /// A request about one box; `rest` follows the box in its path.
    fn of_box(&self, method: Method, id: &str, rest: &[&str]) -> Result<RequestBuilder> {
        check_id(id)?;
        let segments: Vec<&str> = ["runtime", "boxes", id].iter().chain(rest).copied().collect();
        Ok(self.client.request(method, &segments))
    }

    async fn connect(&self, id: &str, request: RequestBuilder) -> Result<Execution> {
        let created: ExecutionCreated = self.client.json(request).await?;
        Ok(execution::connect(&self.client, id, &created))
    }

    /// Refuses a relative path: the server has another working directory.
    fn refuse_relative(&self, reference: &str) -> Result<()> {
        // The server judges what is not a reference, or may be a digest.
        let Ok(parsed) = reference.parse::<Reference>() else { return Ok(()) };
        if parsed.path().is_none_or(Path::is_absolute) { Ok(()) } else { Err(self.relative(reference)) }
    }

    fn relative(&self, what: &str) -> Error {
        Error::invalid(format!(
            "'{what}' names a path on the server {}, not on this host, so it must be absolute",
            self.client.server()
        ))
    }
}

/// Refuses ids that a URL's path cannot hold; no box has such a name.
fn check_id(id: &str) -> Result<()> {
    if matches!(id, "" | "." | "..") {
        return Err(Error::not_found(format!("there is no box '{id}'")));
    }
    Ok(())
}

impl HostOperations for Remote {
    async fn info(&self) -> Result<HostInfo> {
        self.client.json(self.client.get(&["runtime", "info"])).await
    }

    async fn collect_garbage(&self, _: GcOptions) -> Result<GcReport> {
        Err(Error::unsupported("a host's disk is collected on that host; run `boxlite gc` there"))
    }

    async fn check_node(&self, _: bool) -> Result<NodeCheck> {
        Err(Error::unsupported("a node is checked on its own host; run `boxlite node check` there"))
    }

    async fn allotment(&self) -> Result<Allotment> {
        Err(Error::unsupported(
            "a server knows nothing of what this process may use; give the box figures, not auto",
        ))
    }

    async fn adopt(&self, _: &str) -> Result<Adoption> {
        Err(Error::unsupported("a host's boxes are adopted on that host; run `boxlite gc --adopt` there"))
    }

    async fn purge(&self, _: &str) -> Result<Purge> {
        Err(Error::unsupported("a host's disk is collected on that host; run `boxlite gc --purge` there"))
    }

    async fn adopt_home(&self) -> Result<()> {
        Err(Error::unsupported("a host's home is adopted on that host; run `boxlite gc --adopt-home` there"))
    }

    async fn explain_garbage(&self, _: &str) -> Result<Explanation> {
        Err(Error::unsupported("a host's disk is collected on that host; run `boxlite gc --explain` there"))
    }

    async fn disk_usage(&self) -> Result<Usage> {
        self.client.json(self.client.get(&["runtime", "usage"])).await
    }

    async fn disk_tree(&self) -> Result<DiskTree> {
        self.client.json(self.client.get(&["runtime", "tree"])).await
    }

    async fn events(&self, options: EventOptions) -> Result<EventPage> {
        let query = [("options", as_json(&options)?)];
        self.client.json(self.client.get(&["runtime", "events"]).query(&query)).await
    }

    async fn activity(&self) -> Result<Activity> {
        self.client.json(self.client.get(&["runtime", "activity"])).await
    }
}

impl BoxOperations for Remote {
    async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.refuse_relative(&options.image)?;
        if let Some(volume) = options.volumes.iter().find(|volume| volume.starts_with('.')) {
            return Err(self.relative(volume));
        }
        let request = self.client.post(&["runtime", "boxes"]).json(&options);
        let created: BoxInfo = self.client.outcome(request, progress.as_ref()).await?;
        if let Err(refusal) = older_servers::check_created(&options, &created.options) {
            self.remove(&created.id, RemoveOptions::default()).await?;
            return Err(refusal);
        }
        Ok(created)
    }

    async fn place_elsewhere(&self, _: &str, _: Arc<dyn ProgressSink>) -> Result<Option<BoxInfo>> {
        Ok(None)
    }

    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo> {
        if let Some(volume) = options.volumes.iter().flatten().find(|volume| volume.starts_with('.')) {
            return Err(self.relative(volume));
        }
        self.client.outcome(self.of_box(Method::POST, id, &["clone"])?.json(&options), &()).await
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        let query = [("options", as_json(&options)?)];
        self.client.json(self.client.get(&["runtime", "boxes"]).query(&query)).await
    }
}

impl BoxLifecycle for Remote {
    async fn inspect(&self, id: &str) -> Result<BoxInfo> {
        self.client.json(self.of_box(Method::GET, id, &[])?).await
    }

    async fn consumption(&self, id: &str) -> Result<Consumption> {
        self.client.json(self.of_box(Method::GET, id, &["consumption"])?).await
    }

    async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.client.outcome(self.of_box(Method::POST, id, &["start"])?, progress.as_ref()).await
    }

    async fn wait(&self, id: &str) -> Result<ExitStatus> {
        let first = self.wait_once(id).await;
        // A server that stops says so, and the next one knows the box as well.
        if !matches!(&first, Err(error) if error.kind() == ErrorKind::Busy) {
            return first;
        }
        for pause in NEXT_SERVER_INTERVALS {
            tokio::time::sleep(pause).await;
            match self.wait_once(id).await {
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) => {}
                ended => return ended,
            }
        }
        first
    }

    async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        self.client.outcome(self.of_box(Method::POST, id, &["stop"])?.json(&options), &()).await
    }

    async fn update(&self, id: &str, options: UpdateOptions) -> Result<BoxInfo> {
        let updated: BoxInfo = self.client.json(self.of_box(Method::PATCH, id, &[])?.json(&options)).await?;
        older_servers::check_updated(&options, &updated.options)?;
        Ok(updated)
    }

    async fn pause(&self, id: &str) -> Result<BoxInfo> {
        self.client.json(self.of_box(Method::POST, id, &["pause"])?).await
    }

    async fn unpause(&self, id: &str) -> Result<BoxInfo> {
        self.client.json(self.of_box(Method::POST, id, &["unpause"])?).await
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.client.done(self.of_box(Method::POST, id, &["kill"])?.json(&KillRequest { signal })).await
    }

    async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        let query = RemoveQuery { force: options.force };
        self.client.done(self.of_box(Method::DELETE, id, &[])?.query(&query)).await
    }

    async fn remove_ended(&self, _: &str) -> Result<()> {
        Err(Error::unsupported("a box that is to be removed when it ends is removed by its own host"))
    }

    async fn restart_after(&self, _: &str, _: &str) -> Result<()> {
        Err(Error::unsupported(KEPT_BY_HOST))
    }

    async fn expire_after(&self, _: &str, _: &str) -> Result<()> {
        Err(Error::unsupported(KEPT_BY_HOST))
    }
}

/// Pauses between attempts to reach the next server after one has stopped.
const NEXT_SERVER_INTERVALS: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

impl Remote {
    async fn wait_once(&self, id: &str) -> Result<ExitStatus> {
        self.client.outcome(self.of_box(Method::POST, id, &["wait"])?, &()).await
    }
}

const KEPT_BY_HOST: &str = "a box is looked after by its own host when its run has ended";

impl BoxProcesses for Remote {
    async fn attach(&self, id: &str) -> Result<Execution> {
        self.connect(id, self.of_box(Method::POST, id, &["attach"])?).await
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution> {
        self.connect(id, self.of_box(Method::POST, id, &["exec"])?.json(&options)).await
    }

    async fn processes(&self, id: &str) -> Result<GuestProcesses> {
        self.client.json(self.of_box(Method::GET, id, &["processes"])?).await
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        let query = [("options", as_json(&options)?)];
        let lines = self.client.lines(self.of_box(Method::GET, id, &["logs"])?.query(&query)).await?;
        let server = self.client.server().to_owned();
        Ok(stream::unfold(Some((lines, server)), async |state| {
            let (mut lines, server) = state?;
            match next_line(&mut lines, &server).await {
                Ok(None) => None,
                Ok(Some(line)) => Some((Ok(line), Some((lines, server)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

/// The next line of a log; `None` at its end, which the server says.
async fn next_line(lines: &mut AnswerLines, server: &str) -> Result<Option<LogLine>> {
    loop {
        match lines.next().await? {
            Some(LogEvent::Line(record)) => return record.into_line().map(Some),
            Some(LogEvent::Beat) => {}
            Some(LogEvent::End) => return Ok(None),
            Some(LogEvent::Failed(error)) => return Err(error.into_error()),
            None => return Err(failure::broken_off(server, None)),
        }
    }
}

#[cfg(test)]
mod tests;

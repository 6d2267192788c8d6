//! The backend that works on a home of this host.
//!
//! Each file below implements one topic of [`super::operations`]. Blocking work runs on tokio's blocking threads.

mod attending;
mod box_file;
mod boxes;
mod changes;
mod executions;
mod exit;
mod files;
mod guard;
mod host;
mod images;
mod launches;
mod lifecycle;
mod limit;
mod maintenance;
mod metrics;
mod networks;
mod node;
mod pool;
mod processes;
mod restarting;
mod snapshots;
mod stop;
mod streams;
mod tunnels;
mod volumes;

use std::sync::Arc;

use boxlite_home::{EventLog, blocking};
use boxlite_storage::image::Images;
use boxlite_types::{BoxInfo, BoxRecord, Error, EventAction, HomeEvent, Result};
use boxlite_vm::shim::ShimClient;
use metrics::RuntimeMetrics;
pub use node::measure_node;

use crate::context::LocalContext;
use crate::litebox::{self, Observed};
use crate::options::RuntimeOptions;
use crate::traces::TraceExporter;

/// A home of this host; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Local {
    context: Arc<LocalContext>,
    images: Images,
    metrics: Arc<RuntimeMetrics>,
    traces: Option<Arc<TraceExporter>>,
    /// As it was opened.
    options: Arc<RuntimeOptions>,
}

impl Local {
    pub(super) fn open(options: RuntimeOptions) -> Result<Self> {
        let opened = Arc::new(options.clone());
        let traces = options.traces.as_deref().map(TraceExporter::new).transpose()?.map(Arc::new);
        let context = Arc::new(LocalContext::open(&options)?);
        let (home, store, settings) = (context.home.clone(), context.store.clone(), context.settings.clone());
        let images = Images::new(home, store, settings, Arc::new(context.collector()))
            .with_registry_config(options.registry_config)
            .with_further_registry_configs(options.further_registry_configs)
            .with_registry_policy(options.registries);
        Ok(Self { context, images, metrics: Arc::default(), traces, options: opened })
    }

    /// The same home with the settings that its file has by now.
    async fn reopened(&self) -> Result<Self> {
        let options = RuntimeOptions::clone(&self.options);
        blocking(move || Self::open(options)).await
    }

    /// Removes the boxes whose time to live has passed, but for the one with the id `spared`.
    async fn expire(&self, spared: Option<&str>) -> Result<()> {
        let spared = spared.map(str::to_owned);
        self.in_context(move |context| {
            if let Err(error) = litebox::expire(context, spared.as_deref()) {
                tracing::warn!(error = %error.chain(), "boxes whose time to live has passed could not be looked for");
            }
            Ok(())
        })
        .await
    }

    /// Runs `work` on the context where it may block.
    async fn in_context<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<LocalContext>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let context = Arc::clone(&self.context);
        blocking(move || work(&context)).await
    }

    /// Notes among the home's events what has happened to a box.
    fn note(&self, action: EventAction, id: &str, name: &str) {
        EventLog::of(&self.context.home).note(&HomeEvent::of_box(action, id, Some(name)));
    }

    /// The record of the box that `id` names.
    async fn find(&self, id: &str) -> Result<BoxRecord> {
        let id = id.to_owned();
        self.in_context(move |context| context.store.find_box(&id)).await
    }

    /// Describes the box that `id` names for callers.
    async fn describe(&self, id: &str) -> Result<BoxInfo> {
        let id = id.to_owned();
        self.in_context(move |context| litebox::describe(&context.home, &context.store.find_box(&id)?)).await
    }

    /// Observes the box's present state.
    async fn observe(&self, record: &BoxRecord) -> Result<Observed> {
        let record = record.clone();
        self.in_context(move |context| Observed::of(&context.home, &record)).await
    }

    async fn is_running(&self, record: &BoxRecord) -> Result<bool> {
        Ok(matches!(self.observe(record).await?, Observed::Running { .. }))
    }

    /// The record of the box that `id` names, which must be running.
    ///
    /// # Errors
    /// `Conflict` when it is not.
    async fn find_running(&self, id: &str) -> Result<BoxRecord> {
        let record = self.find(id).await?;
        if self.is_running(&record).await? {
            return Ok(record);
        }
        let BoxInfo { name, state, .. } = self.describe(&record.id).await?;
        Err(Error::conflict(format!("box {name} is not running, it is {state}; start it first")))
    }

    /// Speaks to the shim of a box.
    fn client(&self, record: &BoxRecord) -> ShimClient {
        ShimClient::new(self.context.home.of_box(&record.id))
    }
}

#[cfg(test)]
mod tests;

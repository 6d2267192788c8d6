//! The backend that works on a home of this host.

mod host;
mod lifecycle;
mod streams;
mod tally;
mod visit;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use boxlite_home::blocking;
use boxlite_storage::gc;
use boxlite_storage::image::Images;
use boxlite_storage::reference::Reference;
use boxlite_storage::store::ListedBox;
use boxlite_types::{
    Activity, BoxFilter, BoxInfo, BoxOptions, BoxState, CloneOptions, Consumption, Error, ErrorKind,
    ExecOptions, ExecStatus, Execution, GcOptions, GcReport, HostInfo, Image, ListOptions, LogLine,
    LogOptions, ProgressSink, PullOptions, PullPolicy, Removal, RemoveOptions, Result, StopOptions, Usage,
};
use futures::stream::BoxStream;
use tally::Tally;
use tokio::io::AsyncRead;

use super::RuntimeBackend;
use crate::litebox;
use crate::site::{RuntimeOptions, Site};

/// A home of this host; blocking work runs on tokio's blocking threads.
#[derive(Debug, Clone)]
pub(super) struct Local {
    site: Arc<Site>,
    images: Images,
    tally: Arc<Tally>,
}

impl Local {
    pub(super) fn open(options: RuntimeOptions) -> Result<Self> {
        let site = Arc::new(Site::open(options)?);
        let (home, store, settings) = (site.home.clone(), site.store.clone(), site.settings.clone());
        let images = Images::new(home, store, settings, Arc::new(site.collector()));
        Ok(Self { site, images, tally: Arc::default() })
    }

    /// Runs `work` on the site where it may block.
    async fn on_site<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Site>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let site = Arc::clone(&self.site);
        blocking(move || work(&site)).await
    }

    /// The image of a new box: one the home has under that name or digest, else what its source has.
    async fn image_for(&self, options: &BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<Image> {
        let reference = options.image.parse::<Reference>();
        let local_source = reference.as_ref().is_ok_and(Reference::is_local);
        if options.pull != PullPolicy::Always && !local_source {
            match self.images.find(&options.image).await {
                Err(error) if error.kind() == ErrorKind::NotFound && options.pull == PullPolicy::Missing => {}
                found => return found,
            }
        }
        let pull = PullOptions { policy: options.pull, insecure: options.insecure, platform: None };
        self.images.pull(&reference?, &pull, progress).await
    }
}

#[async_trait]
impl RuntimeBackend for Local {
    async fn info(&self) -> Result<HostInfo> {
        self.host_info().await
    }

    async fn collect_garbage(&self, options: GcOptions) -> Result<GcReport> {
        self.on_site(move |site| {
            if !options.dry_run
                && let Err(error) = litebox::reap(site)
            {
                // The pass meets the same trouble and names it in its report.
                tracing::warn!(error = %error.chain(), "ended boxes could not be looked for");
            }
            let began = Instant::now();
            let collected = gc::collect(&site.home, &site.catalog(), &site.settings, &options);
            match &collected {
                Ok(report) => site.gc_tally.count(report, began.elapsed()),
                Err(_) => site.gc_tally.count_failure(),
            }
            collected
        })
        .await
    }

    async fn activity(&self) -> Result<Activity> {
        Ok(self.tally.now(self.site.gc_tally.now()))
    }

    async fn consumption(&self, id: &str) -> Result<Consumption> {
        self.consumption_of(id).await
    }

    async fn disk_usage(&self) -> Result<Usage> {
        self.on_site(|site| gc::usage(&site.home, &site.catalog(), &site.settings)).await
    }

    async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        self.images.pull(&reference.parse()?, &options, progress).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.images.list().await
    }

    async fn image(&self, wanted: &str) -> Result<Image> {
        self.images.find(wanted).await
    }

    async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>> {
        let removed = self.images.remove(wanted, force).await?;
        gc::note_release(&self.site.home);
        Ok(removed)
    }

    async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        let image = self.image_for(&options, progress).await?;
        let created = self.on_site(move |site| {
            litebox::check(&options, &image, &site.settings)?;
            let record = litebox::create(site, options, &image)?;
            litebox::describe(&site.home, &record)
        });
        self.tally.create(created.await)
    }

    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo> {
        let mut held = self.hold(id).await?;
        let cloned = self.on_site(move |site| {
            let record = litebox::clone(site, &mut held, options)?;
            litebox::describe(&site.home, &record)
        });
        self.tally.create(cloned.await)
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        self.on_site(move |site| {
            litebox::reap(site)?;
            let mut boxes = Vec::new();
            for listed in site.store.boxes()? {
                let info = litebox::describe_listed(&site.home, &listed)?;
                if let ListedBox::Damaged(damaged) = &listed {
                    tracing::warn!("{}", damaged.why);
                }
                if shown(&info, &options) {
                    boxes.push(info);
                }
            }
            Ok(boxes)
        })
        .await
    }

    async fn inspect(&self, id: &str) -> Result<BoxInfo> {
        self.inspect_record(id).await
    }

    async fn start(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        self.tally.start(self.start_box(id, progress).await)
    }

    async fn attach(&self, id: &str) -> Result<Execution> {
        self.attach_to(id).await
    }

    async fn exec(&self, id: &str, options: ExecOptions) -> Result<Execution> {
        self.tally.command(self.exec_in(id, options).await)
    }

    async fn wait(&self, id: &str) -> Result<ExecStatus> {
        self.wait_for(id).await
    }

    async fn stop(&self, id: &str, options: StopOptions) -> Result<BoxInfo> {
        self.tally.stop(self.stop_box(id, options).await)
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.kill_main(id, signal).await
    }

    async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        self.remove_box(id, options).await
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.logs_of(id, options).await
    }

    async fn copy_in(&self, id: &str, path: &str, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<()> {
        self.copy_into(id, path, tar).await
    }

    async fn copy_out(&self, id: &str, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.copy_from(id, path).await
    }
}

/// Whether a listing with these options shows the box.
fn shown(info: &BoxInfo, options: &ListOptions) -> bool {
    let by_state = options.filters.iter().any(|filter| matches!(filter, BoxFilter::State(_)));
    let visible = options.all || by_state || info.state == BoxState::Running;
    visible && options.filters.iter().all(|filter| holds(filter, info))
}

fn holds(filter: &BoxFilter, info: &BoxInfo) -> bool {
    match filter {
        BoxFilter::Name(part) => info.name.contains(part),
        BoxFilter::Id(prefix) => info.id.starts_with(prefix),
        BoxFilter::State(state) => info.state == *state,
        BoxFilter::Image(image) => {
            info.image == *image || info.image_digest.trim_start_matches("sha256:").starts_with(image)
        }
        BoxFilter::Label(key, value) => info
            .options
            .labels
            .get(key)
            .is_some_and(|found| value.as_ref().is_none_or(|value| value == found)),
    }
}

/// A box that is asked for something it can only do while it runs.
fn not_running(info: &BoxInfo) -> Error {
    Error::conflict(format!("box {} is not running, it is {}; start it first", info.name, info.state))
}

#[cfg(test)]
mod tests;

//! The images of a home of this host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use boxlite_home::{EventLog, blocking};
use boxlite_storage::gc;
use boxlite_storage::image::{CommitPlan, ImageArchive};
use boxlite_storage::reference::Reference;
use boxlite_types::{
    ArchiveFormat, BoxOptions, CommitOptions, DiskImageFetch, DiskImageFetchOptions, DiskImagePush,
    DiskImagePushOptions, Doing, Error, ErrorKind, EventAction, HistoryEntry, HomeEvent, Image, Login,
    Logout, ProgressSink, PullOptions, PullPolicy, PushOptions, Removal, Result,
};

use super::{Local, streams};
use crate::runtime::operations::{ArchiveInput, ArchiveOperations, ImageOperations, TarStream};

impl ImageOperations for Local {
    async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let asked = Instant::now();
        let image = self.images.pull(&reference.parse()?, &options, progress).await?;
        self.metrics.pulled(asked.elapsed());
        self.note_image(EventAction::Pull, &image.digest.to_string(), reference);
        Ok(image)
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.images.list().await
    }

    async fn image(&self, wanted: &str) -> Result<Image> {
        self.images.find(wanted).await
    }

    async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>> {
        let removed = self.images.remove(wanted, force).await?;
        gc::note_release(&self.context.home);
        self.note_image(EventAction::Remove, "", wanted);
        Ok(removed)
    }

    async fn tag(&self, wanted: &str, name: &str) -> Result<Image> {
        self.images.tag(wanted, name).await
    }

    async fn history(&self, wanted: &str) -> Result<Vec<HistoryEntry>> {
        self.images.history(wanted).await
    }

    async fn push(
        &self,
        wanted: &str,
        target: Option<&str>,
        options: PushOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        self.images.push(wanted, target, &options, progress).await
    }

    async fn push_disk_image(
        &self,
        wanted: &str,
        options: DiskImagePushOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<DiskImagePush> {
        self.images.push_disk_image(wanted, &options, progress).await
    }

    async fn fetch_disk_image(
        &self,
        reference: &str,
        options: DiskImageFetchOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<DiskImageFetch> {
        let Reference::Registry(wanted) = reference.parse()? else {
            return Err(Error::invalid(format!(
                "'{reference}' is of no registry, and has no built disk image"
            )));
        };
        let fetched = self.images.fetch_disk_image(&wanted, &options, progress).await?;
        self.note_image(EventAction::Pull, &fetched.image.digest.to_string(), reference);
        Ok(fetched)
    }
}

impl ArchiveOperations for Local {
    async fn save(&self, images: &[String], format: ArchiveFormat) -> Result<TarStream> {
        let saved = self.images.save(images, format, Arc::new(())).await?;
        streams::written(move |out| saved.write(out))
    }

    async fn load(&self, archive: ArchiveInput, progress: Arc<dyn ProgressSink>) -> Result<Vec<Image>> {
        match archive {
            ArchiveInput::File(path) => self.images.load(ImageArchive::File(path), progress).await,
            ArchiveInput::Stream(tar) => {
                let (pump, reader) = streams::read(tar)?;
                let load = self.images.load(ImageArchive::Stream(Box::new(reader)), progress);
                let (loaded, ()) = tokio::join!(load, pump);
                loaded
            }
        }
    }

    async fn import(&self, archive: ArchiveInput, options: CommitOptions) -> Result<Image> {
        let plan = CommitPlan::new(&options, "boxlite import")?;
        let images = self.images.clone();
        match archive {
            ArchiveInput::File(path) => {
                blocking(move || {
                    let file = std::fs::File::open(&path).doing("opening the archive", &path)?;
                    images.import(file, &plan)
                })
                .await
            }
            ArchiveInput::Stream(tar) => {
                let (pump, reader) = streams::read(tar)?;
                let (imported, ()) = tokio::join!(blocking(move || images.import(reader, &plan)), pump);
                imported
            }
        }
    }

    async fn login(&self, login: Login) -> Result<PathBuf> {
        self.images.login(&login).await
    }

    async fn logout(&self, registry: &str) -> Result<Logout> {
        self.images.logout(registry).await
    }
}

impl Local {
    fn note_image(&self, action: EventAction, digest: &str, reference: &str) {
        EventLog::of(&self.context.home).note(&HomeEvent::of_image(action, digest, Some(reference)));
    }

    /// The image of a new box: the one that the home has under that name or digest, else what its source has.
    pub(super) async fn image_for(
        &self,
        options: &BoxOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let reference = options.image.parse::<Reference>();
        let pull = PullOptions {
            policy: options.pull,
            insecure: options.insecure,
            insecure_credentials: options.insecure_credentials,
            platform: None,
            keep_given_names: false,
        };
        let local_source = reference.as_ref().is_ok_and(Reference::is_local);
        if options.pull != PullPolicy::Always && !local_source {
            match self.images.find(&options.image).await {
                Err(error) if error.kind() == ErrorKind::NotFound && options.pull == PullPolicy::Missing => {}
                Ok(image) if options.pull == PullPolicy::Missing => {
                    self.images.complete(&image, &pull, progress).await?;
                    return Ok(image);
                }
                found => return found,
            }
        }
        let reference = reference?;
        if !local_source {
            // Where no box can run, an image for one would be fetched in vain.
            self.in_context(|context| context.assets.find().map(drop)).await?;
        }
        let image = self.images.pull(&reference, &pull, progress).await?;
        self.note_image(EventAction::Pull, &image.digest.to_string(), &options.image);
        Ok(image)
    }
}

//! The images of a home of this host.

use std::sync::Arc;

use boxlite_storage::gc;
use boxlite_storage::reference::Reference;
use boxlite_types::{BoxOptions, ErrorKind, Image, ProgressSink, PullOptions, PullPolicy, Removal, Result};

use super::Local;
use crate::runtime::operations::ImageOperations;

impl ImageOperations for Local {
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
        gc::note_release(&self.context.home);
        Ok(removed)
    }
}

impl Local {
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
        self.images.pull(&reference?, &pull, progress).await
    }
}

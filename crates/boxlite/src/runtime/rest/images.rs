//! Images on a server's home, and what its boxes have changed of theirs.

use std::path::PathBuf;
use std::sync::Arc;

use boxlite_types::wire::{ImageQuery, PullRequest, PushRequest, SaveRequest, TagRequest};
use boxlite_types::{
    ArchiveFormat, CommitOptions, DiskImageFetch, DiskImageFetchOptions, DiskImagePush, DiskImagePushOptions,
    Doing, Error, FileChange, HistoryEntry, Image, Login, Logout, ProgressSink, PullOptions, PushOptions,
    Removal, Result,
};
use reqwest::Method;

use super::http::as_json;
use super::{Remote, files};
use crate::runtime::operations::{ArchiveInput, ArchiveOperations, BoxImages, ImageOperations, TarStream};

impl ImageOperations for Remote {
    async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        self.refuse_relative(reference)?;
        let body = PullRequest { reference: reference.to_owned(), options };
        let request = self.client.post(&["runtime", "images"]).json(&body);
        self.client.outcome(request, progress.as_ref()).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.client.json(self.client.get(&["runtime", "images"])).await
    }

    async fn image(&self, wanted: &str) -> Result<Image> {
        self.refuse_relative(wanted)?;
        let query = ImageQuery { wanted: wanted.to_owned(), force: false };
        self.client.json(self.client.get(&["runtime", "image"]).query(&query)).await
    }

    async fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removal>> {
        self.refuse_relative(wanted)?;
        let query = ImageQuery { wanted: wanted.to_owned(), force };
        self.client.json(self.client.request(Method::DELETE, &["runtime", "image"]).query(&query)).await
    }

    async fn tag(&self, wanted: &str, name: &str) -> Result<Image> {
        self.refuse_relative(wanted)?;
        let body = TagRequest { wanted: wanted.to_owned(), name: name.to_owned() };
        self.client.json(self.client.post(&["runtime", "image", "tags"]).json(&body)).await
    }

    async fn history(&self, wanted: &str) -> Result<Vec<HistoryEntry>> {
        self.refuse_relative(wanted)?;
        let query = ImageQuery { wanted: wanted.to_owned(), force: false };
        self.client.json(self.client.get(&["runtime", "image", "history"]).query(&query)).await
    }

    async fn push(
        &self,
        wanted: &str,
        target: Option<&str>,
        options: PushOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        self.refuse_relative(wanted)?;
        let body = PushRequest { wanted: wanted.to_owned(), target: target.map(str::to_owned), options };
        let request = self.client.post(&["runtime", "image", "push"]).json(&body);
        self.client.outcome(request, progress.as_ref()).await
    }

    async fn push_disk_image(
        &self,
        _: &str,
        _: DiskImagePushOptions,
        _: Arc<dyn ProgressSink>,
    ) -> Result<DiskImagePush> {
        Err(Error::unsupported(
            "built disk images are pushed from their own host; run `boxlite image push` there",
        ))
    }

    async fn fetch_disk_image(
        &self,
        _: &str,
        _: DiskImageFetchOptions,
        _: Arc<dyn ProgressSink>,
    ) -> Result<DiskImageFetch> {
        Err(Error::unsupported(
            "whose disk images count is each host's own choice; run `boxlite image fetch` there",
        ))
    }
}

impl ArchiveOperations for Remote {
    async fn save(&self, images: &[String], format: ArchiveFormat) -> Result<TarStream> {
        images.iter().try_for_each(|image| self.refuse_relative(image))?;
        let request = SaveRequest { images: images.to_vec(), format };
        let query = [("request", as_json(&request)?)];
        let response = self.client.send(self.client.get(&["runtime", "archive"]).query(&query)).await?;
        Ok(files::tar_in(response, self.client.server()))
    }

    /// Sends a file of this host, not of the server's.
    async fn load(&self, archive: ArchiveInput, _: Arc<dyn ProgressSink>) -> Result<Vec<Image>> {
        let tar = opened(archive).await?;
        let response =
            files::send_tar(&self.client, self.client.request(Method::PUT, &["runtime", "archive"]), tar);
        self.client.parsed(response.await?).await
    }

    /// Sends a file of this host, not of the server's.
    async fn import(&self, archive: ArchiveInput, options: CommitOptions) -> Result<Image> {
        let query = [("options", as_json(&options)?)];
        let request = self.client.request(Method::PUT, &["runtime", "import"]).query(&query);
        let response = files::send_tar(&self.client, request, opened(archive).await?).await?;
        self.client.parsed(response).await
    }

    async fn login(&self, _: Login) -> Result<PathBuf> {
        Err(Error::unsupported("credentials are kept on the host that uses them; run `boxlite login` there"))
    }

    async fn logout(&self, _: &str) -> Result<Logout> {
        Err(Error::unsupported("credentials are kept on the host that uses them; run `boxlite logout` there"))
    }
}

impl BoxImages for Remote {
    async fn diff(&self, id: &str) -> Result<Vec<FileChange>> {
        self.client.json(self.of_box(Method::GET, id, &["changes"])?).await
    }

    async fn commit(&self, id: &str, options: CommitOptions) -> Result<Image> {
        self.client.outcome(self.of_box(Method::POST, id, &["commit"])?.json(&options), &()).await
    }

    async fn export(&self, id: &str) -> Result<TarStream> {
        let response = self.client.send(self.of_box(Method::GET, id, &["export"])?).await?;
        Ok(files::tar_in(response, self.client.server()))
    }
}

/// The bytes of an archive of this host.
async fn opened(archive: ArchiveInput) -> Result<TarStream> {
    match archive {
        ArchiveInput::File(path) if path.is_dir() => {
            let message = "a directory cannot be sent to a server; make an archive of it";
            Err(Error::unsupported(message).at(path))
        }
        ArchiveInput::File(path) => {
            Ok(Box::new(tokio::fs::File::open(&path).await.doing("opening the archive", path)?))
        }
        ArchiveInput::Stream(tar) => Ok(tar),
    }
}

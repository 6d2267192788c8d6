//! Images.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use boxlite::{ErrorKind, Image, PullOptions, Reference};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::page::PageQuery;
use crate::App;
use crate::body::{Json, Path, Query};
use crate::failure::Failure;

/// An image under one of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ImageInfo {
    reference: String,
    repository: String,
    tag: String,
    id: String,
    cached_at: Timestamp,
    size_bytes: u64,
}

/// An image and its name's other builds, as newer clients ask for it.
#[derive(Debug, Serialize)]
pub(super) struct ImageDetail {
    #[serde(flatten)]
    info: ImageInfo,
    name: String,
    aliases: Vec<String>,
    versions: Vec<Version>,
    /// This server keeps none.
    history: [(); 0],
}

impl ImageDetail {
    fn new(info: ImageInfo, versions: Vec<Version>) -> Self {
        let aliases = versions.iter().flat_map(|version| version.aliases.iter().cloned()).collect();
        Self { name: info.repository.clone(), info, aliases, versions, history: [] }
    }
}

/// A build under a name.
#[derive(Debug, Serialize)]
struct Version {
    digest: String,
    /// The name that it is held under first.
    source_ref: String,
    aliases: Vec<String>,
    size_bytes: u64,
    recorded_at: Timestamp,
    last_used_at: Timestamp,
}

impl Version {
    fn of(image: &Image, name: &str) -> Self {
        Self {
            digest: image.digest.to_string(),
            source_ref: image.references.first().cloned().unwrap_or_default(),
            aliases: under(image, name).map(str::to_owned).collect(),
            size_bytes: image.stored_bytes(),
            recorded_at: image.pulled_at,
            last_used_at: image.last_used_at,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ImageList {
    images: Vec<ImageInfo>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PullImage {
    reference: String,
}

impl ImageInfo {
    /// `image` as `reference` names it.
    fn named(image: &Image, reference: String) -> Self {
        let (repository, tag) = split(&reference);
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            id: image.digest.to_string(),
            cached_at: image.pulled_at,
            size_bytes: image.stored_bytes(),
            reference,
        }
    }

    /// `image` once for each of its names, and once by its digest when it has none.
    fn all(image: &Image) -> Vec<Self> {
        if image.references.is_empty() {
            return vec![Self::named(image, image.digest.to_string())];
        }
        image.references.iter().map(|reference| Self::named(image, reference.clone())).collect()
    }
}

/// Repository and tag of a canonical reference; the tag is empty where there is none.
fn split(reference: &str) -> (&str, &str) {
    match reference.split_once('@') {
        Some((named, _)) if !named.is_empty() => split(named),
        _ => match reference.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (reference, ""),
        },
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<ImageList>, Failure> {
    let images: Vec<ImageInfo> = app.runtime.images().await?.iter().flat_map(ImageInfo::all).collect();
    let (images, next_page_token) = query.of(images, |info| info.reference.clone())?;
    Ok(Answer(ImageList { images, next_page_token }))
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Json(request): Json<PullImage>,
) -> Result<Answer<ImageInfo>, Failure> {
    let reference = app.with_access(move |access| access.image(&request.reference)).await?;
    let parsed: Reference = reference.parse()?;
    let pulled = app.runtime.pull(&reference, PullOptions::default(), Arc::new(())).await;
    let image = pulled.map_err(Failure::of_pull)?;
    Ok(Answer(ImageInfo::named(&image, parsed.to_string())))
}

/// The image that `id` means, or the one pulled last under that name, with every build held under its name.
pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Answer<ImageDetail>, Failure> {
    let mut images = app.runtime.images().await?;
    let image = match app.runtime.image(&id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            images.iter().find(|image| under(image, &id).next().is_some()).cloned().ok_or(error)?
        }
        found => found?,
    };
    let named = id.parse::<Reference>().map(|reference| reference.to_string()).ok();
    let all = ImageInfo::all(&image);
    let asked = all.iter().find(|info| Some(&info.reference) == named.as_ref()).or(all.first());
    let info = asked.cloned().unwrap_or_else(|| ImageInfo::named(&image, id));
    images.retain(|image| under(image, &info.repository).next().is_some());
    let versions = images.iter().map(|image| Version::of(image, &info.repository)).collect();
    Ok(Answer(ImageDetail::new(info, versions)))
}

/// The tags of `image` under the repository that `name`, with or without its registry, means.
fn under<'a>(image: &'a Image, name: &'a str) -> impl Iterator<Item = &'a str> {
    let canonical = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
    let tags = image.references.iter().map(|reference| split(reference));
    tags.filter(move |(repository, _)| *repository == name || *repository == split(&canonical).0)
        .map(|(_, tag)| tag)
}

pub(super) async fn exists(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    app.runtime.image(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_reference_is_a_repository_and_a_tag() {
        for (reference, repository, tag) in [
            ("docker.io/library/alpine:3.20", "docker.io/library/alpine", "3.20"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y", "1"),
            ("localhost:5000/x@sha256:00", "localhost:5000/x", ""),
            ("localhost:5000/x:1@sha256:00", "localhost:5000/x", "1"),
            ("oci:/srv/layout:mini", "oci:/srv/layout", "mini"),
            ("sha256:00", "sha256", "00"),
        ] {
            assert_eq!(split(reference), (repository, tag));
        }
    }
}

//! Images in the public API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boxlite::{ErrorKind, Image, PullOptions, Reference};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::page::PageQuery;
use crate::app::App;
use crate::body::{JsonBody, PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;

/// An image under one of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PublicImage {
    reference: String,
    repository: String,
    tag: String,
    id: String,
    cached_at: Timestamp,
    size_bytes: u64,
}

/// An image with the other builds of its name, as newer clients expect it.
#[derive(Debug, Serialize)]
pub(super) struct PublicImageDetail {
    #[serde(flatten)]
    info: PublicImage,
    name: String,
    aliases: Vec<String>,
    versions: Vec<ImageVersion>,
    /// Always empty: this server keeps no history.
    history: [(); 0],
}

impl PublicImageDetail {
    fn new(info: PublicImage, versions: Vec<ImageVersion>) -> Self {
        let aliases = versions.iter().flat_map(|version| version.aliases.iter().cloned()).collect();
        Self { name: info.repository.clone(), info, aliases, versions, history: [] }
    }
}

/// A build under a name.
#[derive(Debug, Serialize)]
struct ImageVersion {
    digest: String,
    /// Its first name.
    source_ref: String,
    aliases: Vec<String>,
    size_bytes: u64,
    recorded_at: Timestamp,
    last_used_at: Timestamp,
}

impl ImageVersion {
    fn of(image: &Image, name: &str) -> Self {
        Self {
            digest: image.digest.to_string(),
            source_ref: image.references.first().cloned().unwrap_or_default(),
            aliases: under(image, name).map(|reference| split(reference).1.to_owned()).collect(),
            size_bytes: image.stored_bytes(),
            recorded_at: image.pulled_at,
            last_used_at: image.last_used_at,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct PublicImagePage {
    images: Vec<PublicImage>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PullImageRequest {
    reference: String,
}

impl PublicImage {
    /// Describes `image` under the name `reference`.
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

    /// Describes `image` once per name, or once by its digest when it has none.
    fn all(image: &Image) -> Vec<Self> {
        if image.references.is_empty() {
            return vec![Self::named(image, image.digest.to_string())];
        }
        image.references.iter().map(|reference| Self::named(image, reference.clone())).collect()
    }
}

/// Splits a canonical reference into repository and tag; the tag is empty where there is none.
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
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<PublicImagePage>, HttpFailure> {
    let images: Vec<PublicImage> = app.runtime.images().await?.iter().flat_map(PublicImage::all).collect();
    let (images, next_page_token) = query.of(images, |info| info.reference.clone())?;
    Ok(Json(PublicImagePage { images, next_page_token }))
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(request): JsonBody<PullImageRequest>,
) -> Result<Json<PublicImage>, HttpFailure> {
    let reference = app.with_allowed(move |allowed| allowed.image(&request.reference)).await?;
    let parsed: Reference = reference.parse()?;
    let options = PullOptions { keep_given_names: caller.is_named(), ..PullOptions::default() };
    let pulled = app.runtime.pull(&reference, options, Arc::new(())).await;
    let image = pulled.map_err(HttpFailure::of_pull)?;
    Ok(Json(PublicImage::named(&image, parsed.to_string())))
}

/// Shows the image that `id` means, or the latest one pulled under that name, with every build held under its name.
pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<PublicImageDetail>, HttpFailure> {
    let mut images = app.runtime.images().await?;
    let image = match app.runtime.image(&id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            images.iter().find(|image| under(image, &id).next().is_some()).cloned().ok_or(error)?
        }
        found => found?,
    };
    let named = id.parse::<Reference>().map(|reference| reference.to_string()).ok();
    let all = PublicImage::all(&image);
    let asked = all.iter().find(|info| Some(&info.reference) == named.as_ref()).or(all.first());
    let info = asked.cloned().unwrap_or_else(|| PublicImage::named(&image, id));
    images.retain(|image| under(image, &info.repository).next().is_some());
    let versions = images.iter().map(|image| ImageVersion::of(image, &info.repository)).collect();
    Ok(Json(PublicImageDetail::new(info, versions)))
}

/// Returns the references of `image` in the repository `name`, which may lack its registry.
fn under<'a>(image: &'a Image, name: &'a str) -> impl Iterator<Item = &'a String> {
    // A name with a tag means one image of the repository.
    let is_repository = split(name).1.is_empty();
    let canonical = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
    image.references.iter().filter(move |reference| {
        let (repository, _) = split(reference);
        is_repository && (repository == name || repository == split(&canonical).0)
    })
}

/// Removes the image that `id` means, or every tag under that name, unless a box uses it: images are everybody's, so the
/// operator alone may, and a box whose image is gone cannot be started again.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, HttpFailure> {
    caller.refuse_named("remove images", "images are everybody's")?;
    let images = app.runtime.images().await?;
    let mut named: Vec<String> = images.iter().flat_map(|image| under(image, &id)).cloned().collect();
    if named.is_empty() {
        named.push(id);
    }
    for reference in named {
        app.runtime.remove_image(&reference, false).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The space that images take; no allowance limits it.
#[derive(Debug, Serialize)]
pub(super) struct ImagesUsage {
    count: usize,
    known_bytes: u64,
    limit: u64,
}

/// The allowance where there is none: clients want a number, and this is the largest that every JSON reader keeps exactly.
const UNLIMITED: u64 = (1 << 53) - 1;

pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<Json<ImagesUsage>, HttpFailure> {
    let images = app.runtime.images().await?;
    let known_bytes = images.iter().map(Image::stored_bytes).sum();
    Ok(Json(ImagesUsage { count: images.len(), known_bytes, limit: UNLIMITED }))
}

pub(super) async fn exists(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, HttpFailure> {
    app.runtime.image(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use boxlite::Digest;

    use super::*;

    fn image(references: &[&str]) -> Image {
        Image {
            digest: Digest::of(references.concat().as_bytes()),
            references: references.iter().map(|reference| (*reference).to_owned()).collect(),
            platform: boxlite::Platform::host(),
            config: boxlite::ImageConfig::default(),
            layers: Vec::new(),
            pulled_at: Timestamp::UNIX_EPOCH,
            last_used_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Before: `DELETE …/images/sha256` removed every image without a name. Mutation tried: the digest of an image without
    /// a reference counts as one.
    #[test]
    fn a_repository_has_references_and_digests_are_none() {
        let tagged = image(&["docker.io/library/alpine:3", "docker.io/library/alpine:latest", "quay.io/a:1"]);
        for name in ["alpine", "docker.io/library/alpine"] {
            assert_eq!(
                under(&tagged, name).collect::<Vec<_>>(),
                ["docker.io/library/alpine:3", "docker.io/library/alpine:latest"]
            );
        }
        for name in ["alpine:3", "sha256", "debian", ""] {
            assert_eq!(under(&tagged, name).count(), 0, "{name}");
        }
        assert_eq!(under(&image(&[]), "sha256").count(), 0);
    }

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

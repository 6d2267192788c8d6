//! The referrers of an image in its repository (OCI distribution spec 1.1): listed by the registry's API, or, where the
//! registry has none, in an index under a tag that clients keep themselves.
//!
//! # Limits
//!
//! Everybody who may push to the repository adds to the list. So entries of other types do not count, a list in pages is
//! followed for [`MAX_PAGES`], and of more than [`MAX_REFERRERS`] the last count, which are the newest where a list grows at
//! its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use boxlite_types::{Digest, Error, ErrorKind, ProgressSink, PullOptions, Result};
use reqwest::header::{HeaderMap, LINK};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Trouble;
use super::route::Route;
use super::upstream::Upstream;
use super::{RegistryAccess, Repository};
use crate::image::manifest::OCI_INDEX;
use crate::reference::RegistryReference;

/// The most referrers of one image and type that are looked at.
const MAX_REFERRERS: usize = 1024;
/// The most pages of a list that are asked for.
const MAX_PAGES: usize = 64;
/// How often an index that others write as well is written anew.
const MAX_REWRITES: usize = 5;
/// The header by which a registry says that it lists a manifest among the referrers.
const SUBJECT_HEADER: &str = "oci-subject";

/// A manifest that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) artifact_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Repository {
    /// Lists the manifests of the type `artifact_type` that refer to `subject` in the repository of `reference`. What the list
    /// says of them is a claim.
    pub(crate) async fn referrers(
        reference: &RegistryReference,
        subject: Digest,
        artifact_type: &str,
        options: &PullOptions,
        access: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Vec<Referrer>> {
        let upstream = Upstream::registry(reference, options, access)?;
        let found = access.credentials(reference).await?;
        let mut first = None;
        for security in upstream.ways {
            let (host, authority) = (reference.host(), upstream.authority());
            let route = Route::new(host, authority, *security, upstream.trusted, upstream.timeouts())?;
            let repository = Self::unasked(reference, route, &found, upstream.insecure_credentials, progress);
            match repository.listed_referrers(subject, artifact_type).await {
                Ok(mut all) => {
                    all.drain(..all.len().saturating_sub(MAX_REFERRERS));
                    return Ok(all);
                }
                Err(Trouble::Unreached(error) | Trouble::OtherScheme(error)) => {
                    first.get_or_insert(error);
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(first.unwrap_or_else(|| Error::bug("no scheme was tried")))
    }

    async fn listed_referrers(&self, subject: Digest, artifact_type: &str) -> Result<Vec<Referrer>, Trouble> {
        let list = format!("referrers/{subject}");
        let (mut page, mut found) = (format!("{list}?artifactType={artifact_type}"), Vec::new());
        for number in 0..MAX_PAGES {
            let (headers, bytes) = match self.document(&page, number == 0).await {
                Ok(document) => document,
                Err(Trouble::Final(error)) if error.kind() == ErrorKind::NotFound => break,
                Err(other) => return Err(other),
            };
            found.extend(of_type(entries(&bytes, subject)?, artifact_type));
            match next_page(&headers, &list) {
                Some(next) => page = next,
                None => break,
            }
        }
        if found.is_empty() {
            found.extend(of_type(self.index_of_referrers(subject).await?, artifact_type));
        }
        Ok(found)
    }

    /// The entries of the index under the tag that stands in for the API.
    async fn index_of_referrers(&self, subject: Digest) -> Result<Vec<Value>, Trouble> {
        match self.document(&format!("manifests/{}", index_tag(subject)), true).await {
            Ok((_, bytes)) => Ok(entries(&bytes, subject)?),
            Err(Trouble::Final(error)) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }

    /// Puts the manifest of an artifact that refers to `subject`, and sees to it that it is listed as `entry`; entries that
    /// `replaces` holds for go.
    pub(crate) async fn push_referrer(
        &self,
        manifest: &[u8],
        subject: Digest,
        entry: &Referrer,
        replaces: impl Fn(&Referrer) -> bool,
    ) -> Result<()> {
        let headers = self.put_manifest(&entry.digest.to_string(), &entry.media_type, manifest).await?;
        if headers.contains_key(SUBJECT_HEADER) {
            return Ok(());
        }
        let added = json!(entry);
        for _ in 0..MAX_REWRITES {
            let mut all = self.index_of_referrers(subject).await?;
            if all.contains(&added) {
                return Ok(());
            }
            // Entries of other programs stay as they are.
            all.retain(|value| {
                Referrer::deserialize(value).map_or(true, |it| it.digest != entry.digest && !replaces(&it))
            });
            all.push(added.clone());
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": all }).to_string();
            self.put_manifest(&index_tag(subject), OCI_INDEX, index.as_bytes()).await?;
        }
        let message = format!(
            "{} keeps changing in {}: others list what refers to the image at the same time; try again",
            index_tag(subject),
            self.reference.familiar()
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

/// The tag that stands in for the list of what refers to `subject`.
fn index_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The entries of an index.
fn entries(bytes: &[u8], subject: Digest) -> Result<Vec<Value>> {
    #[derive(Deserialize)]
    struct ReferrerIndex {
        #[serde(default)]
        manifests: Vec<Value>,
    }
    let index: ReferrerIndex = serde_json::from_slice(bytes).map_err(|error| {
        Error::corrupt(format!("the list of what refers to {subject} is malformed")).because(error)
    })?;
    Ok(index.manifests)
}

fn of_type(entries: Vec<Value>, artifact_type: &str) -> impl Iterator<Item = Referrer> {
    let all = entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok());
    all.filter(move |it: &Referrer| it.artifact_type == artifact_type)
}

/// The path of the page of `list` that follows, by the answer's headers. Whatever a link says, it leads to no other list.
fn next_page(headers: &HeaderMap, list: &str) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|value| value.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let mut parameters = parameters.split(';').map(str::trim);
        parameters.find(|it| matches!(*it, "rel=next" | "rel=\"next\""))?;
        let (path, query) = target.split_once('?')?;
        path.ends_with(&format!("/{list}")).then(|| format!("{list}?{query}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_next_page_of_the_same_list() {
        let list = "referrers/sha256:ab";
        let next = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LINK, value.parse().unwrap());
            }
            next_page(&headers, list)
        };
        let page = Some("referrers/sha256:ab?n=2&last=x".to_owned());
        assert_eq!(next(&["</v2/app/referrers/sha256:ab?n=2&last=x>; rel=\"next\""]), page);
        assert_eq!(next(&["<https://r.example/v2/app/referrers/sha256:ab?n=2&last=x>; rel=next"]), page);
        let first = "</v2/app/referrers/sha256:ab?n=1>; rel=first";
        assert_eq!(next(&[&format!("{first}, </v2/app/referrers/sha256:ab?n=2&last=x>; rel=next")]), page);
        assert_eq!(next(&[first, "<referrers/sha256:ab>; rel=next"]), None);
        assert_eq!(next(&["</v2/other/referrers/sha256:cd?n=2>; rel=next", "nonsense", "<"]), None);
    }
}

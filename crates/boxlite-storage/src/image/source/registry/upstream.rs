//! A place that has an image: its registry, or a mirror of that.

use boxlite_home::settings::Mirror;
use boxlite_types::{Digest, Error, PullOptions, Result};

use super::RegistryAccess;
use super::route::{RouteTimeouts, Security, ways};
use crate::reference::RegistryReference;

pub(super) const HUB: &str = "docker.io";
pub(super) const HUB_API: &str = "registry-1.docker.io";

/// Where and how an image is asked for.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    /// The image as it is named there.
    pub(super) reference: RegistryReference,
    pub(super) ways: &'static [Security],
    /// It may be at a private address.
    pub(super) trusted: bool,
    /// Credentials are sent whatever the way.
    pub(super) insecure_credentials: bool,
    /// It is a mirror: another upstream comes after it, so that it is not waited for as long.
    pub(super) is_mirror: bool,
}

impl Upstream {
    /// The registry that `reference` names, as `options` let it be used.
    ///
    /// # Errors
    /// `Denied` where it is not for the caller to use it insecurely.
    pub(super) fn registry(
        reference: &RegistryReference,
        options: &PullOptions,
        access: &RegistryAccess,
    ) -> Result<Self> {
        if options.insecure || options.insecure_credentials {
            access.refuse_insecure(reference.host())?;
        }
        Ok(Self {
            reference: reference.clone(),
            ways: ways(api_of(reference.host()), options.insecure),
            trusted: access.policy.trusts(reference.host()),
            insecure_credentials: options.insecure_credentials,
            is_mirror: false,
        })
    }

    /// A mirror of that registry. The setting that names it is the operator's, so it may be at a private address.
    pub(super) fn mirror(reference: &RegistryReference, mirror: &Mirror) -> Self {
        let reference = reference.at_mirror(&mirror.host, mirror.prefix.as_deref());
        let ways = if mirror.plain { &[Security::Plain] } else { ways(api_of(reference.host()), false) };
        Self { reference, ways, trusted: true, insecure_credentials: false, is_mirror: true }
    }

    /// The same place, asked for the image of this digest.
    pub(super) fn pinned(&self, digest: Option<Digest>) -> Self {
        let at = |digest| Self { reference: self.reference.at_digest(digest), ..self.clone() };
        digest.map_or_else(|| self.clone(), at)
    }

    /// The host that is connected to.
    pub(super) fn authority(&self) -> &str {
        api_of(self.reference.host())
    }

    pub(super) fn timeouts(&self) -> RouteTimeouts {
        if self.is_mirror { RouteTimeouts::MIRROR } else { RouteTimeouts::FETCH }
    }

    /// Tells the operator that this mirror could not serve.
    pub(super) fn warn_given_up(&self, error: &Error) {
        let (mirror, image) = (self.reference.host(), self.reference.familiar());
        // The rest of the text is advice, for whoever has named the registry itself.
        let message = error.to_string();
        let why = message.split("; ").next().unwrap_or_default();
        tracing::warn!("mirror {mirror} is passed over: {why} (asked for {image})");
    }
}

/// The host that serves the registry's API.
pub(super) fn api_of(host: &str) -> &str {
    if host == HUB { HUB_API } else { host }
}

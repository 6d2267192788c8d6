//! The client behind a request, and the boxes that are its own.
//!
//! A box made with a key of the keys file carries the key's name in the label [`OWNER_LABEL`]. The label is part of the
//! box's record, so it outlives servers, and the command line shows it. Such a key finds only its own boxes: others do not
//! exist for it. Images and figures about the host are everybody's.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use boxlite::{
    BoxInfo, BoxOptions, Digest, Error, ErrorKind, NetworkInfo, NetworkOptions, Result, VolumeInfo,
    VolumeOptions,
};

use crate::failure::HttpFailure;
use crate::keys::NamedKey;

/// The label that names the key which a box belongs to.
pub(crate) const OWNER_LABEL: &str = "boxlite.key";

/// The client that sent a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A program of this host, to a server without keys.
    Local,
    /// The holder of the key of `--api-key-file`.
    Operator,
    /// The holder of a key of the keys file.
    Named(Arc<NamedKey>),
    /// Somebody without a key, on a route that needs none.
    Anyone,
}

impl Caller {
    /// The name in what the caller is told about itself.
    pub(crate) fn display_name(&self) -> &str {
        match self {
            Self::Local => "program of this host",
            Self::Operator => "holder of the API key",
            Self::Named(key) => &key.name,
            Self::Anyone => "anyone",
        }
    }

    /// Returns the hash of the key that what the caller is granted ends with, if it is one of the keys file.
    pub(crate) fn grantee(&self) -> Option<Digest> {
        match self {
            Self::Named(key) => Some(key.hash),
            _ => None,
        }
    }

    /// Tells whether the box exists for the caller.
    pub(crate) fn sees(&self, info: &BoxInfo) -> bool {
        match self {
            Self::Named(key) => info.options.labels.get(OWNER_LABEL) == Some(&key.name),
            _ => true,
        }
    }

    /// Tells whether the named volume exists for the caller.
    pub(crate) fn sees_volume(&self, volume: &VolumeInfo) -> bool {
        match self {
            Self::Named(key) => volume.labels.get(OWNER_LABEL) == Some(&key.name),
            _ => true,
        }
    }

    /// Tells whether the network exists for the caller.
    pub(crate) fn sees_network(&self, network: &NetworkInfo) -> bool {
        match self {
            Self::Named(key) => network.labels.get(OWNER_LABEL) == Some(&key.name),
            _ => true,
        }
    }

    /// Tells whether the caller holds a key of the keys file.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// Refuses what only the operator may do; `what` completes "cannot", and `why` is the reason.
    pub(crate) fn refuse_named(&self, what: &str, why: &str) -> Result<()> {
        match self {
            Self::Named(key) => {
                let message = format!("key {} cannot {what}: {why}", key.name);
                Err(Error::new(ErrorKind::Denied, message))
            }
            _ => Ok(()),
        }
    }

    /// Returns the options of a box that will belong to the caller.
    ///
    /// # Errors
    /// `Denied` when the request gives the box to another key.
    pub(crate) fn owned(&self, mut options: BoxOptions) -> Result<BoxOptions> {
        options.creation_key = None;
        self.label(&mut options.labels, "box")?;
        Ok(options)
    }

    /// Returns the options of a named volume that will belong to the caller.
    ///
    /// # Errors
    /// `Denied` when the request gives the volume to another key.
    pub(crate) fn owned_volume(&self, mut options: VolumeOptions) -> Result<VolumeOptions> {
        self.label(&mut options.labels, "volume")?;
        Ok(options)
    }

    /// Returns the options of a network that will belong to the caller.
    ///
    /// # Errors
    /// `Denied` when the request gives the network to another key.
    pub(crate) fn owned_network(&self, mut options: NetworkOptions) -> Result<NetworkOptions> {
        self.label(&mut options.labels, "network")?;
        Ok(options)
    }

    fn label(&self, labels: &mut BTreeMap<String, String>, what: &str) -> Result<()> {
        let Self::Named(key) = self else { return Ok(()) };
        match labels.insert(OWNER_LABEL.to_owned(), key.name.clone()) {
            Some(other) if other != key.name => Err(Error::new(
                ErrorKind::Denied,
                format!("key {} cannot make a {what} with the label {OWNER_LABEL}={other}", key.name),
            )),
            _ => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, HttpFailure> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Error::bug("a request reached its route without passing the gate").into())
    }
}

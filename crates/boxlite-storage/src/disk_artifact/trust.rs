//! Whose artifacts count. A pure decision: by the settings, the place, and the signature.

use boxlite_home::settings::{FetchKeys, FetchPlaces, Settings};
use boxlite_types::{Error, ErrorCause, ErrorKind, Result};

use super::signature::ArtifactKey;
use crate::reference::RegistryReference;

/// Whose artifacts the operator accepts. Each of the two settings that is set must be satisfied, and one must be set.
#[derive(Debug)]
pub(super) struct FetchTrust<'a> {
    places: &'a FetchPlaces,
    keys: Vec<ArtifactKey>,
}

impl<'a> FetchTrust<'a> {
    /// # Errors
    /// `Denied` where nobody's are accepted; `InvalidInput` for a key that is none.
    pub(super) fn of(settings: &'a Settings) -> Result<Self> {
        Self::new(&settings.image_fetch_from.value, &settings.image_fetch_keys.value)
    }

    fn new(places: &'a FetchPlaces, keys: &FetchKeys) -> Result<Self> {
        if places.is_empty() && keys.is_empty() {
            let message = "no built disk image is accepted here: whoever can write one chooses what runs in the boxes; name \
                           public keys (setting image_fetch_keys) or repositories (image_fetch_from) whose disk images count";
            return Err(denied(message.to_owned()));
        }
        Ok(Self { places, keys: keys.iter().map(ArtifactKey::parse).collect::<Result<_>>()? })
    }

    /// Checks the repository before anything is asked of it.
    ///
    /// # Errors
    /// `Denied` where artifacts of the repository are not accepted, or not on a way on which others could change them.
    pub(super) fn check_place(&self, place: &RegistryReference, insecure: bool) -> Result<()> {
        let (host, repository) = (place.host(), place.repository());
        if !self.places.is_empty() && !self.places.contain(host, repository) {
            return Err(denied(format!(
                "built disk images of {host}/{repository} are not accepted here; the setting image_fetch_from names others"
            )));
        }
        if insecure && self.keys.is_empty() {
            return Err(denied(format!(
                "built disk images of {host} are not fetched insecurely without a signature: anyone on the way could \
                 change them; name a public key (setting image_fetch_keys)"
            )));
        }
        Ok(())
    }

    /// Whether the annotation says that a key which counts has signed. A claim, by which nothing but an order may be chosen.
    pub(super) fn names_signer(&self, signature: Option<&str>) -> bool {
        signature.is_some_and(|text| self.keys.iter().any(|key| key.is_named_in(text)))
    }

    /// Checks what vouches for a config.
    ///
    /// # Errors
    /// `Denied` where a signature is required and this is none of a key that counts.
    pub(super) fn check_signature(&self, config: &[u8], signature: Option<&str>) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let Some(signature) = signature else {
            return Err(denied(
                "the built disk image is not signed, and image_fetch_keys wants that".to_owned(),
            ));
        };
        if self.keys.iter().any(|key| key.has_signed(config, signature)) {
            return Ok(());
        }
        Err(denied("the built disk image is not signed by a key that image_fetch_keys names".to_owned()))
    }
}

fn denied(message: String) -> Error {
    Error::new(ErrorKind::Denied, message).about(ErrorCause::Trust)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use boxlite_home::settings::{SettingsOptions, SettingsVariables};

    use super::*;

    fn settings(text: &str) -> Settings {
        let file = Some((Path::new("/h/config.toml"), text));
        Settings::resolve(file, &SettingsVariables::default(), &SettingsOptions::default()).unwrap()
    }

    #[test]
    fn nothing_is_accepted_unless_the_operator_says_whose() {
        let place = |text: &str| RegistryReference::parse(text).unwrap();
        let closed = settings("");
        let error = FetchTrust::of(&closed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("image_fetch_keys"), "{error}");

        let places = settings("image_fetch_from = [\"registry.example/team\"]");
        let trust = FetchTrust::of(&places).unwrap();
        assert!(trust.check_place(&place("registry.example/team/app:1"), false).is_ok());
        assert!(trust.check_place(&place("registry.example/other:1"), false).is_err());
        assert!(
            trust.check_place(&place("registry.example/team/app:1"), true).is_err(),
            "insecure, unsigned"
        );
        assert!(trust.check_signature(b"config", None).is_ok());

        let key = format!("{}=", "A".repeat(43));
        let keys = settings(&format!("image_fetch_keys = [\"{key}\"]"));
        let trust = FetchTrust::of(&keys).unwrap();
        assert!(
            trust.check_place(&place("anywhere.example/app:1"), true).is_ok(),
            "a signature needs no TLS"
        );
        assert!(trust.check_signature(b"config", None).is_err());
        assert!(trust.check_signature(b"config", Some("ed25519:x:y")).is_err());

        let both =
            settings(&format!("image_fetch_from = \"registry.example\"\nimage_fetch_keys = \"{key}\""));
        let trust = FetchTrust::of(&both).unwrap();
        assert!(trust.check_place(&place("anywhere.example/app:1"), false).is_err());
        assert!(trust.check_signature(b"config", None).is_err());
        assert!(FetchTrust::of(&settings(&format!("image_fetch_keys = \"{}\"", "=".repeat(44)))).is_err());
    }
}

//! Signatures of artifacts by ed25519 keys, in the forms that `openssl` writes.

use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boxlite_types::{Doing, Error, Result};

/// The prefix of the config in the bytes that are signed: a signature is of nothing else.
const DOMAIN: &[u8] = b"boxlite disk image artifact 1\0";
/// The prefix of the 32 bytes of a public key in DER.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ALGORITHM: &str = "ed25519";
/// A key file has some hundred bytes.
const MAX_KEY_FILE: u64 = 1 << 16;

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArtifactKey([u8; 32]);

impl ArtifactKey {
    /// Reads a key of the setting.
    ///
    /// # Errors
    /// `InvalidInput` for what is no key.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("'{text}' (setting image_fetch_keys) is no ed25519 public key"));
        let bytes = STANDARD.decode(text).map_err(|error| wrong().because(error))?;
        let raw = bytes.strip_prefix(&SPKI[..]).unwrap_or(&bytes);
        raw.try_into().map(Self).map_err(|_| wrong())
    }

    pub(super) fn text(self) -> String {
        STANDARD.encode(self.0)
    }

    /// Whether the signature, as its annotation has it, is this key's for `config`.
    pub(super) fn has_signed(self, config: &[u8], signature: &str) -> bool {
        let Some(bytes) = self.signature_in(signature).and_then(|text| STANDARD.decode(text).ok()) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, self.0).verify(&message(config), &bytes).is_ok()
    }

    /// Whether the annotation says that the signature is this key's.
    pub(super) fn is_named_in(self, signature: &str) -> bool {
        self.signature_in(signature).is_some()
    }

    /// The signature proper, in an annotation that names this key.
    fn signature_in(self, signature: &str) -> Option<&str> {
        let mut parts = signature.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(ALGORITHM), Some(key), Some(text), None) if key == self.text() => Some(text),
            _ => None,
        }
    }
}

/// The private key of somebody who builds disk images.
pub(super) struct ArtifactSigner(Ed25519KeyPair);

impl std::fmt::Debug for ArtifactSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArtifactSigner")
    }
}

impl ArtifactSigner {
    /// Reads the file that `openssl genpkey -algorithm ed25519` writes.
    ///
    /// # Errors
    /// `InvalidInput` for a file with something else.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = || {
            let message = format!(
                "{} is no ed25519 key in PEM; `openssl genpkey -algorithm ed25519 -out FILE` makes one",
                path.display()
            );
            Error::invalid(message).at(path)
        };
        let length = std::fs::metadata(path).doing("reading the key", path)?.len();
        if length > MAX_KEY_FILE {
            return Err(wrong());
        }
        let text = std::fs::read_to_string(path).doing("reading the key", path)?;
        let der = pem(&text, "PRIVATE KEY").ok_or_else(wrong)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| wrong())?;
        Ok(Self(pair))
    }

    pub(super) fn key(&self) -> Result<ArtifactKey> {
        let bytes = self.0.public_key().as_ref();
        bytes.try_into().map(ArtifactKey).map_err(|_| Error::bug("a public key has another length"))
    }

    /// The signature of `config`, as its annotation has it.
    pub(super) fn sign(&self, config: &[u8]) -> Result<String> {
        let signature = self.0.sign(&message(config));
        Ok(format!("{ALGORITHM}:{}:{}", self.key()?.text(), STANDARD.encode(signature.as_ref())))
    }
}

fn message(config: &[u8]) -> Vec<u8> {
    [DOMAIN, config].concat()
}

/// The bytes of the PEM block with that label.
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn openssl(arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// openssl makes the keys and checks a signature, so that neither is only our own idea of one.
    #[test]
    fn a_signature_is_of_one_key_and_one_config() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let (private, public) = (path("key.pem"), path("key.pub"));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]);
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        let signer = ArtifactSigner::read(Path::new(&private)).unwrap();
        let shown = pem(&std::fs::read_to_string(&public).unwrap(), "PUBLIC KEY").unwrap();
        let key = ArtifactKey::parse(&STANDARD.encode(&shown)).unwrap();
        assert_eq!(key, signer.key().unwrap());
        assert_eq!(ArtifactKey::parse(&key.text()).unwrap(), key, "the setting takes either form");

        let signature = signer.sign(b"config").unwrap();
        assert!(key.has_signed(b"config", &signature));
        assert!(!key.has_signed(b"another", &signature));
        let other = path("other.pem");
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &other]);
        let other = ArtifactSigner::read(Path::new(&other)).unwrap();
        assert!(!other.key().unwrap().has_signed(b"config", &signature));
        // The annotation's own key decides nothing.
        let forged = other.sign(b"config").unwrap().replace(&other.key().unwrap().text(), &key.text());
        assert!(!key.has_signed(b"config", &forged));
        for nonsense in
            ["", "ed25519", "ed25519::", &format!("rsa{}", &signature[7..]), &format!("{signature}:x")]
        {
            assert!(!key.has_signed(b"config", nonsense), "{nonsense}");
        }

        std::fs::write(path("message"), message(b"config")).unwrap();
        let bytes = STANDARD.decode(signature.rsplit_once(':').unwrap().1).unwrap();
        std::fs::write(path("signature"), bytes).unwrap();
        let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin", "-in"];
        let (message, signature) = (path("message"), path("signature"));
        openssl(&[&verify[..], &[&*message, "-sigfile", &*signature]].concat());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("rsa.pem");
        openssl(&["genpkey", "-algorithm", "rsa", "-out", path.to_str().unwrap()]);
        assert!(ArtifactSigner::read(&path).unwrap_err().to_string().contains("openssl genpkey"));
        assert!(ArtifactKey::parse(&"A".repeat(44)).is_err() && ArtifactKey::parse("%").is_err());
    }
}

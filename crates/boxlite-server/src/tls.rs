//! TLS: a certificate and its key, read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use boxlite::{Error, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::watched::{self, FileStamp};

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its authority's, in PEM.
    pub certificate: PathBuf,
    /// Its private key in PEM, which others than owner and group must not be able to read.
    pub key: PathBuf,
}

/// The certificate that is shown to new connections.
pub(crate) struct Certificate {
    files: TlsFiles,
    current: Mutex<(Arc<ServerConfig>, [FileStamp; 2])>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads certificate and key; blocks.
    ///
    /// # Errors
    /// `Denied` when others may read the key, `InvalidInput` when the files are not what they should be or do not belong
    /// together.
    pub(crate) fn read(files: TlsFiles) -> Result<Self> {
        let stamps = files.stamps();
        let config = files.config()?;
        Ok(Self { files, current: Mutex::new((config, stamps)) })
    }

    /// Returns what makes a new connection a TLS connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current.0))
    }

    /// Reads the files again if they have changed, and keeps what was read before when they are unusable; blocks.
    pub(crate) fn refresh(&self) {
        let stamps = self.files.stamps();
        if self.current.lock().unwrap_or_else(PoisonError::into_inner).1 == stamps {
            return;
        }
        let config = self.files.config();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.1 = stamps;
        let certificate = self.files.certificate.display();
        match config {
            Ok(config) => {
                tracing::info!(%certificate, "read the certificate again");
                current.0 = config;
            }
            Err(error) => {
                tracing::warn!(%certificate, error = %error.chain(), "the certificate stays the one read before");
            }
        }
    }
}

impl TlsFiles {
    fn stamps(&self) -> [FileStamp; 2] {
        [FileStamp::of(&self.certificate), FileStamp::of(&self.key)]
    }

    fn config(&self) -> Result<Arc<ServerConfig>> {
        watched::refuse_open_to_all(&self.key, "the private key")?;
        let lacks = |path: &Path, what: &str| {
            Error::invalid(format!("{} holds no {what} in PEM", path.display())).at(path)
        };
        let malformed = |path: &Path, what: &str, error: pem::Error| match error {
            pem::Error::Io(error) => Error::io("reading", path, error),
            error => lacks(path, what).because(error),
        };
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|error| malformed(&self.certificate, "certificate", error))?;
        if certificates.is_empty() {
            return Err(lacks(&self.certificate, "certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| malformed(&self.key, "private key", error))?;
        let unusable = |error: rustls::Error| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            Error::invalid(format!("the certificate {certificate} cannot be used with the key {key}"))
                .at(&self.certificate)
                .because(error)
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

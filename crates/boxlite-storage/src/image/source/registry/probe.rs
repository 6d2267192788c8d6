//! Whether registries still have images: short questions that a pass of gc asks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite_home::settings::RegistryMirrors;
use boxlite_types::Digest;
use futures::{StreamExt, stream};

use super::{RegistryAccess, RegistryPolicy, Repository};
use crate::catalog::AskRegistries;
use crate::reference::Reference;

/// How many images are asked about in one pass; the least recently used ones come first.
const MAX_QUESTIONS: usize = 32;
/// How many registries are asked at a time.
const PARALLEL_QUESTIONS: usize = 8;
/// The longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait for all of them, so that a start is not held up by registries that are not there.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(4);

/// Asks registries for manifests by digest, with a HEAD.
#[derive(Debug)]
pub struct RegistryProbe {
    access: RegistryAccess,
}

impl RegistryProbe {
    /// Asks with the credentials in `config` (Docker's `config.json`) or in the `further` files, and only the registries
    /// that `policy` allows.
    pub fn new(config: Option<&Path>, further: &[PathBuf], policy: RegistryPolicy) -> Self {
        let mirrors = Arc::default();
        Self {
            access: RegistryAccess {
                config: config.map(Arc::from),
                further: further.into(),
                policy,
                mirrors,
            },
        }
    }

    /// Asks the registries' mirrors as well.
    #[must_use]
    pub fn with_mirrors(self, mirrors: RegistryMirrors) -> Self {
        Self { access: RegistryAccess { mirrors: Arc::new(mirrors), ..self.access } }
    }

    async fn ask(&self, images: &[(String, String)], having: &Mutex<BTreeSet<String>>) {
        let ask = async |(name, digest): &(String, String)| {
            let (Ok(Reference::Registry(reference)), Ok(wanted)) = (name.parse(), digest.parse::<Digest>())
            else {
                return;
            };
            let answer = Repository::has(&reference, wanted, &self.access);
            if tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or(false) {
                having.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
            }
        };
        let all = stream::iter(images).for_each_concurrent(PARALLEL_QUESTIONS, ask);
        if tokio::time::timeout(TOTAL_TIMEOUT, all).await.is_err() {
            tracing::debug!("not all registries have answered in time; what they may have lost stays");
        }
    }
}

impl AskRegistries for RegistryProbe {
    fn having(&self, images: &[(String, String)]) -> BTreeSet<String> {
        let having = Mutex::new(BTreeSet::new());
        let images = &images[..images.len().min(MAX_QUESTIONS)];
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(self.ask(images, &having)),
                Err(error) => tracing::debug!(%error, "no registry can be asked"),
            }
        };
        // A thread of its own: whoever collects may be within a runtime already, which must not be blocked twice.
        std::thread::scope(|scope| drop(scope.spawn(ask).join()));
        having.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

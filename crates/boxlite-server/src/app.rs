//! The state that every request can use.

use std::sync::Arc;

use boxlite::{
    BoxInfo, CloneOptions, Error, ErrorKind, NetworkInfo, NetworkJoin, ProgressSink, Result, Runtime,
    UpdateOptions, VolumeInfo, VolumeOptions, parse_named,
};

use crate::allowances::{Allowances, PendingBox};
use crate::allowed::AllowedPaths;
use crate::auth::AuthGate;
use crate::caller::Caller;
use crate::connections::{ConnectionLimits, Connections};
use crate::drain::Drain;
use crate::executions::Executions;
use crate::history::History;
use crate::idempotency::KeptAnswers;
use crate::observations::Observations;
use crate::tunnels::Grants;

/// The state that the routes share.
pub(crate) struct App {
    pub(crate) runtime: Runtime,
    pub(crate) gate: Arc<AuthGate>,
    allowed: Arc<AllowedPaths>,
    pub(crate) allowances: Arc<Allowances>,
    pub(crate) executions: Arc<Executions>,
    pub(crate) observations: Observations,
    pub(crate) history: History,
    pub(crate) connections: Arc<Connections>,
    pub(crate) kept_answers: Arc<KeptAnswers>,
    pub(crate) grants: Grants,
    /// Whether `/metrics` has series of each box.
    pub(crate) has_box_metrics: bool,
    /// Whether clients reach it by TLS of its own.
    pub(crate) is_encrypted: bool,
    pub(crate) drain: Drain,
}

impl App {
    /// The state of a server that has answered nothing yet.
    pub(crate) fn new(
        runtime: Runtime,
        gate: AuthGate,
        allowed: AllowedPaths,
        limits: ConnectionLimits,
        is_encrypted: bool,
    ) -> Self {
        Self {
            observations: Observations::new(runtime.clone()),
            history: History::default(),
            connections: Connections::new(limits),
            runtime,
            gate: Arc::new(gate),
            allowed: Arc::new(allowed),
            allowances: Arc::default(),
            executions: Arc::default(),
            kept_answers: Arc::default(),
            grants: Grants::default(),
            has_box_metrics: false,
            is_encrypted,
            drain: Drain::default(),
        }
    }

    /// Runs `check`, which may block, against the paths that requests may name.
    pub(crate) async fn with_allowed<T: Send + 'static>(
        &self,
        check: impl FnOnce(&AllowedPaths) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let allowed = Arc::clone(&self.allowed);
        tokio::task::spawn_blocking(move || check(&allowed))
            .await
            .map_err(|error| Error::bug("checking a path was interrupted").because(error))?
    }

    /// Returns the options of a clone with the paths of its volumes checked.
    pub(crate) async fn allowed_clone(&self, options: CloneOptions) -> Result<CloneOptions> {
        self.with_allowed(move |allowed| {
            let volumes = options.volumes.as_deref().map(|texts| allowed.volumes(texts)).transpose()?;
            Ok(CloneOptions { volumes, ..options })
        })
        .await
    }

    /// Makes a named volume that belongs to the caller.
    pub(crate) async fn create_volume(&self, caller: &Caller, options: VolumeOptions) -> Result<VolumeInfo> {
        let options = caller.owned_volume(options)?;
        let _pending = self.allowances.reserve_volume(&self.runtime, caller, options.size).await?;
        self.runtime.create_volume(options).await
    }

    /// The named volume, if it exists for the caller.
    ///
    /// # Errors
    /// `NotFound` for another's as well.
    pub(crate) async fn volume(&self, caller: &Caller, name: &str) -> Result<VolumeInfo> {
        let volume = self.runtime.volume(name).await?;
        if caller.sees_volume(&volume) {
            return Ok(volume);
        }
        Err(Error::not_found(format!("there is no volume '{name}'")))
    }

    /// Refuses named volumes of others in a box of the caller's, and makes the caller's own that are missing, within its
    /// limits.
    ///
    /// # Errors
    /// `Denied`, and as for [`App::create_volume`].
    pub(crate) async fn own_volumes(&self, caller: &Caller, texts: &[String]) -> Result<()> {
        if !caller.is_named() {
            return Ok(());
        }
        for text in texts {
            let Some(mount) = parse_named(text)? else { continue };
            match self.runtime.volume(&mount.name).await {
                Ok(volume) if caller.sees_volume(&volume) => {}
                Ok(_) => {
                    let message =
                        format!("the volume '{}' belongs to another; choose another name", mount.name);
                    return Err(Error::new(ErrorKind::Denied, message));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.create_volume(
                        caller,
                        VolumeOptions { name: mount.name, ..VolumeOptions::default() },
                    )
                    .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The network, if it exists for the caller.
    ///
    /// # Errors
    /// `NotFound` for another's as well.
    pub(crate) async fn network(&self, caller: &Caller, name: &str) -> Result<NetworkInfo> {
        let network = self.runtime.network(name).await?;
        if caller.sees_network(&network) {
            return Ok(network);
        }
        Err(Error::not_found(format!("there is no network '{name}'")))
    }

    /// Refuses another's networks for a box of the caller's.
    ///
    /// # Errors
    /// As for [`App::network`].
    pub(crate) async fn own_networks<'a>(
        &self,
        caller: &Caller,
        joins: impl Iterator<Item = &'a NetworkJoin> + Send,
    ) -> Result<()> {
        for join in joins.filter(|_| caller.is_named()) {
            self.network(caller, &join.name).await?;
        }
        Ok(())
    }

    /// Counts a clone of the box as one of the caller's, until the result is dropped.
    pub(crate) async fn reserve_clone(
        &self,
        caller: &Caller,
        id: &str,
        options: &CloneOptions,
    ) -> Result<Option<PendingBox>> {
        let original = self.runtime.inspect(id).await?;
        self.allowances.reserve(&self.runtime, caller, &options.applied_to(original.options)).await
    }

    /// Counts the memory that a box of the caller's gets in addition, until the result is dropped.
    pub(crate) async fn reserve_update(
        &self,
        caller: &Caller,
        id: &str,
        changes: &UpdateOptions,
    ) -> Result<Option<PendingBox>> {
        let Some(memory) = changes.memory else { return Ok(None) };
        let more = memory.saturating_sub(self.runtime.inspect(id).await?.options.memory);
        self.allowances.reserve_memory(&self.runtime, caller, more).await
    }

    /// Starts the box, unless one of its volumes now leads somewhere else than when it was allowed.
    pub(crate) async fn start(&self, info: BoxInfo, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        let options = info.options;
        self.with_allowed(move |allowed| allowed.still_leads_there(&options)).await?;
        self.runtime.start(&info.id, progress).await
    }
}

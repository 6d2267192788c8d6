//! One box, for a program that works with it.

use std::sync::Arc;

use boxlite_types::{BoxOptions, CloneOptions, ProgressSink, Result};

use super::Runtime;

/// A box of a runtime; cheap to clone.
///
/// Dropping it changes nothing: the box belongs to the home, not to the program. Once another process has removed the
/// box, every method returns `NotFound`.
#[derive(Debug, Clone)]
pub struct LiteBox {
    runtime: Runtime,
    id: String,
}

impl LiteBox {
    /// Creates a box; see [`Runtime::create`].
    ///
    /// # Errors
    /// Those of [`Runtime::create`].
    pub async fn create(
        runtime: &Runtime,
        options: BoxOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let info = runtime.create(options, progress).await?;
        Ok(Self { runtime: runtime.clone(), id: info.id })
    }

    /// Finds the box of that name, id or unique prefix of an id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when several ids begin with it.
    pub async fn find(runtime: &Runtime, wanted: &str) -> Result<Self> {
        let info = runtime.inspect(wanted).await?;
        Ok(Self { runtime: runtime.clone(), id: info.id })
    }

    /// Clones the box; see [`Runtime::clone_box`].
    ///
    /// # Errors
    /// Those of [`Runtime::clone_box`].
    pub async fn clone_box(&self, options: CloneOptions) -> Result<Self> {
        let info = self.runtime.clone_box(&self.id, options).await?;
        Ok(Self { runtime: self.runtime.clone(), id: info.id })
    }

    /// Its id, 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The runtime that it belongs to.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

//! Snapshots of a server's boxes.

use boxlite_types::{BoxInfo, Error, RestoreOptions, Result, Snapshot, SnapshotOptions};
use reqwest::Method;

use super::Remote;
use crate::runtime::operations::BoxSnapshots;

impl BoxSnapshots for Remote {
    async fn create_snapshot(&self, id: &str, options: SnapshotOptions) -> Result<Snapshot> {
        let request = self.of_box(Method::POST, id, &["snapshots"])?.json(&options);
        self.client.outcome(request, &()).await
    }

    async fn snapshots(&self, id: &str) -> Result<Vec<Snapshot>> {
        self.client.json(self.of_box(Method::GET, id, &["snapshots"])?).await
    }

    async fn restore_snapshot(&self, id: &str, name: &str, options: RestoreOptions) -> Result<BoxInfo> {
        check_name(name)?;
        let request = self.of_box(Method::POST, id, &["snapshots", name, "restore"])?.json(&options);
        self.client.outcome(request, &()).await
    }

    async fn remove_snapshot(&self, id: &str, name: &str) -> Result<()> {
        check_name(name)?;
        self.client.done(self.of_box(Method::DELETE, id, &["snapshots", name])?).await
    }
}

/// Refuses names that a URL's path cannot hold; no snapshot has such a name.
fn check_name(name: &str) -> Result<()> {
    if matches!(name, "" | "." | "..") {
        return Err(Error::not_found(format!("there is no snapshot '{name}'")));
    }
    Ok(())
}

//! Named volumes of a server's home.

use boxlite_types::{Error, ErrorCause, Result, VolumeInfo, VolumeOptions, VolumePrune, is_volume_name};
use reqwest::{Method, RequestBuilder};

use super::Remote;
use crate::runtime::operations::VolumeOperations;

impl Remote {
    /// A request about one volume. A name that no volume has may be none that a URL's path can hold.
    fn of_volume(&self, method: Method, name: &str) -> Result<RequestBuilder> {
        if !is_volume_name(name) {
            return Err(
                Error::invalid(format!("{name:?} is not a name for a volume")).about(ErrorCause::Volume)
            );
        }
        Ok(self.client.request(method, &["runtime", "volumes", name]))
    }
}

impl VolumeOperations for Remote {
    async fn create_volume(&self, options: VolumeOptions) -> Result<VolumeInfo> {
        self.client.json(self.client.post(&["runtime", "volumes"]).json(&options)).await
    }

    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.client.json(self.client.get(&["runtime", "volumes"])).await
    }

    async fn volume(&self, name: &str) -> Result<VolumeInfo> {
        self.client.json(self.of_volume(Method::GET, name)?).await
    }

    async fn remove_volume(&self, name: &str) -> Result<u64> {
        self.client.json(self.of_volume(Method::DELETE, name)?).await
    }

    async fn prune_volumes(&self) -> Result<VolumePrune> {
        self.client.json(self.client.post(&["runtime", "volumes-prune"])).await
    }
}

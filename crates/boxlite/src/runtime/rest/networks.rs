//! Networks of a server's home.

use boxlite_types::{NetworkInfo, NetworkOptions, NetworkPrune, Result, check_network_name};
use reqwest::{Method, RequestBuilder};

use super::Remote;
use crate::runtime::operations::NetworkOperations;

impl Remote {
    /// A request about one network. A name that no network has may be none that a URL's path can hold.
    fn of_network(&self, method: Method, name: &str) -> Result<RequestBuilder> {
        check_network_name(name)?;
        Ok(self.client.request(method, &["runtime", "networks", name]))
    }
}

impl NetworkOperations for Remote {
    async fn create_network(&self, options: NetworkOptions) -> Result<NetworkInfo> {
        self.client.json(self.client.post(&["runtime", "networks"]).json(&options)).await
    }

    async fn networks(&self) -> Result<Vec<NetworkInfo>> {
        self.client.json(self.client.get(&["runtime", "networks"])).await
    }

    async fn network(&self, name: &str) -> Result<NetworkInfo> {
        self.client.json(self.of_network(Method::GET, name)?).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.client.json(self.of_network(Method::DELETE, name)?).await
    }

    async fn prune_networks(&self) -> Result<NetworkPrune> {
        self.client.json(self.client.post(&["runtime", "networks-prune"])).await
    }
}

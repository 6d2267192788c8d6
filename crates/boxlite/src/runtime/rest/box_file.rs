//! Boxes of a server as single files.

use boxlite_types::{BoxExportOptions, BoxImportOptions, ImportedBox, Result};
use reqwest::Method;

use super::http::as_json;
use super::{Remote, files};
use crate::runtime::operations::{BoxExports, BoxImports, TarStream};

impl BoxImports for Remote {
    async fn import_box(&self, archive: TarStream, options: BoxImportOptions) -> Result<ImportedBox> {
        let query = [("options", as_json(&options)?)];
        let request = self.client.request(Method::PUT, &["runtime", "box-file"]).query(&query);
        self.client.parsed(files::send_tar(&self.client, request, archive).await?).await
    }
}

impl BoxExports for Remote {
    async fn export_box(&self, id: &str, options: BoxExportOptions) -> Result<TarStream> {
        let query = [("options", as_json(&options)?)];
        let response = self.client.send(self.of_box(Method::GET, id, &["file"])?.query(&query)).await?;
        Ok(files::tar_in(response, self.client.server()))
    }
}

//! Connections to ports inside a box.

use boxlite_types::{Error, Result};

use super::Local;
use crate::runtime::Tunnel;
use crate::runtime::operations::BoxNetwork;

impl BoxNetwork for Local {
    async fn dial(&self, id: &str, port: u16) -> Result<Tunnel> {
        if port == 0 {
            return Err(Error::invalid("0 is no port; ports are 1 to 65535"));
        }
        let record = self.find_running(id).await?;
        self.refuse_paused(&record, false).await?;
        let (output, input) = self.client(&record).dial(port).await?;
        Ok(Tunnel { output: Box::new(output), input: Box::new(input) })
    }
}

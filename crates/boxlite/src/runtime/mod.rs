//! The façade: everything that the command line, the server and an embedding program can do.

mod fleet;
mod litebox;
mod local;
mod operations;
mod rest;
mod tunnel;

use std::sync::Arc;

use boxlite_types::{Error, Result};

use crate::options::RuntimeOptions;

pub use litebox::LiteBox;
pub use local::measure_node;
pub use operations::{ArchiveInput, LogStream, TarStream};
pub use rest::RemoteOptions;
pub use tunnel::Tunnel;

/// A runtime on a home of this host or on a server's home; cheap to clone.
///
/// Box operations take an `id`: a name, an id or a unique prefix of an id. [`LiteBox`] has the same operations for
/// one box.
#[derive(Debug, Clone)]
pub struct Runtime {
    backend: Arc<RuntimeBackend>,
}

/// The backend that carries out the operations.
#[derive(Debug)]
enum RuntimeBackend {
    Local(local::Local),
    Remote(rest::Remote),
    Fleet(fleet::Fleet),
}

impl Runtime {
    /// Opens a runtime on a home of this host.
    ///
    /// # Errors
    /// `InvalidInput` for a setting that is wrong, `Unsupported` for a filesystem that cannot hold a home, `Denied`
    /// where the home cannot be written.
    pub fn local(options: RuntimeOptions) -> Result<Self> {
        let backend = Arc::new(RuntimeBackend::Local(local::Local::open(options)?));
        Ok(Self { backend })
    }

    /// Keeps as many restored guests waiting for this runtime's next boxes as the setting `pool` says; never returns, and
    /// does nothing where that is none, or on the home of a server.
    ///
    /// The guests end with this process, however that ends.
    pub async fn keep_pool(&self) {
        match &*self.backend {
            RuntimeBackend::Local(local) => local.keep_pool().await,
            RuntimeBackend::Remote(_) | RuntimeBackend::Fleet(_) => std::future::pending().await,
        }
    }

    /// Makes a runtime on the home of a server, `boxlite serve`, without asking it anything yet.
    ///
    /// Paths in requests (of image layouts, archives, volumes) and in answers are the server's. Waiting, following a
    /// log and pulling take as long as they take, while the server shows that it is alive. A command's connection that
    /// breaks is made again, and nothing of its input and output is lost.
    ///
    /// # Errors
    /// `InvalidInput` for a URL or a key that cannot be used. Every method besides its own errors: `Unavailable` when
    /// the server cannot be reached or breaks off, `Denied` for a wrong key, `Unsupported` when what answers is not a
    /// boxlite server; [`boxlite_types::Error::server`] then names it.
    pub fn remote(options: &RemoteOptions) -> Result<Self> {
        let backend = Arc::new(RuntimeBackend::Remote(rest::Remote::new(options)?));
        Ok(Self { backend })
    }

    /// Makes a runtime on the homes of several servers at once, without asking them anything yet.
    ///
    /// A box is found wherever it is. A new one goes to the server that has most room by its own word, and to the next where
    /// it is refused for want of room; [`Runtime::list`] merges and says where each box is. A server that is down is left out
    /// with a warning. What concerns one home (images, volumes, networks, garbage) is refused with `InvalidInput`.
    ///
    /// # Errors
    /// As for [`Runtime::remote`]; `InvalidInput` also where no server is named, or one twice.
    pub fn fleet(servers: &[RemoteOptions]) -> Result<Self> {
        match servers {
            [] => Err(Error::invalid("no server is named")),
            [one] => Self::remote(one),
            several => Ok(Self { backend: Arc::new(RuntimeBackend::Fleet(fleet::Fleet::new(several)?)) }),
        }
    }
}

//! The process beside a shim that acts once the run has ended: it restarts the box, or removes it.
//!
//! The shim gives up every right that a start needs, so the process that starts the box again cannot be the shim. The
//! keeper is the shim's parent. It holds no claim of the box, and no lock but the one that shows it, and it is a caller like
//! any other once its shim has exited, however that came. A keeper that is killed costs the box its restart and nothing else.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use boxlite_home::BoxPaths;
use boxlite_types::{Doing, Error, Result};

use super::handover::LaunchMessage;
use super::log::CappedFile;

/// The most bytes of a keeper's own log.
const LOG_CAP: u64 = 64 << 10;

/// The parent of a shim whose box is looked after when its run has ended.
#[derive(Debug)]
pub struct Keeper {
    home: PathBuf,
    box_dir: PathBuf,
    id: String,
    run: String,
    starter: serde_json::Value,
    shim: rustix::process::Pid,
}

impl Keeper {
    /// Reads the launch specification without moving the shim's place in it; `None` where no keeper is wanted.
    pub(super) fn wanted(spec: &File) -> Result<Option<LaunchMessage>> {
        let length = spec.metadata().doing("examining", "the launch specification")?.len();
        let length =
            usize::try_from(length).map_err(|_| Error::bug("the launch specification is too long"))?;
        let mut text = vec![0; length];
        spec.read_exact_at(&mut text, 0).doing("reading", "the launch specification")?;
        let message: LaunchMessage = serde_json::from_slice(&text)
            .map_err(|error| Error::bug("the launch specification cannot be understood").because(error))?;
        Ok(message.spec.keeper.is_some().then_some(message))
    }

    /// The keeper beside the process `shim`.
    pub(super) fn beside(shim: rustix::process::Pid, message: LaunchMessage) -> Result<Self> {
        let home = message.spec.home()?.root().to_owned();
        let spec = message.spec;
        let starter = spec.keeper.map(|keeper| keeper.starter).unwrap_or_default();
        Ok(Self { home, box_dir: spec.box_dir, id: spec.box_id, run: spec.run_id, starter, shim })
    }

    /// Waits until the shim has exited. Blocks.
    pub fn wait(&self) {
        while let Err(rustix::io::Errno::INTR) =
            rustix::process::waitpid(Some(self.shim), rustix::process::WaitOptions::empty())
        {}
    }

    /// The home's directory.
    pub fn home(&self) -> &PathBuf {
        &self.home
    }

    /// The box's files.
    pub fn paths(&self) -> BoxPaths {
        BoxPaths::new(self.box_dir.clone())
    }

    /// The box.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run that it keeps.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// As in [`super::KeeperSpec::starter`].
    pub fn starter(&self) -> &serde_json::Value {
        &self.starter
    }

    /// Where its own words go: `boxes/<id>/keeper.log`, bounded.
    pub fn log(&self) -> Result<impl Write + Send + 'static> {
        Ok(KeeperLog(CappedFile::start(&self.box_dir.join("keeper.log"), LOG_CAP)?))
    }
}

struct KeeperLog(CappedFile);

impl Write for KeeperLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

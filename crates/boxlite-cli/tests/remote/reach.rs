//! How commands find a home: through a server that has it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline::eventually;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::home::{on_any_disk, program};

/// A `boxlite serve` of its own, with what it complains in a file that is shown when a test fails.
pub(crate) struct Reach {
    server: Child,
    address: SocketAddr,
    complaints: PathBuf,
}

impl Reach {
    /// Serves `home` on a free port, with the whole filesystem for images and volumes.
    pub(crate) fn of(home: &Path, assets: Option<&Assets>) -> Self {
        Self::with(home, assets, &["--allow-path", "/"])
    }

    /// Serves `home` on a free port with these arguments.
    pub(crate) fn with(home: &Path, assets: Option<&Assets>, arguments: &[&str]) -> Self {
        let complaints = home.with_extension("served");
        let mut command = Command::new(program());
        command.args(["serve", "--port", "0", "--gc-interval", "off", "--allow-host", "80"]).args(arguments);
        command.env("BOXLITE_HOME", home);
        on_any_disk(&mut command);
        if let Some(assets) = assets {
            command.env("BOXLITE_ASSETS", assets.directory());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::options().create(true).append(true).open(&complaints).expect("a file"));
        let mut server = command.spawn().expect("starting boxlite serve");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit("http://").next().and_then(|address| address.parse().ok());
        let said = || std::fs::read_to_string(&complaints);
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}: {:?}", said()));
        Self { server, address, complaints }
    }

    /// Has `command` work on the home.
    pub(crate) fn lead(&self, command: &mut Command) {
        command.env("BOXLITE_REST_URL", self.url()).env_remove("BOXLITE_API_KEY").env_remove("BOXLITE_HOME");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).expect("a living server");
    }

    /// Whether the server has ended; its port may be another's by then.
    pub(crate) fn has_ended(&self) -> bool {
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), looking).expect("a child").is_some()
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.server)
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the server said: {:?}", std::fs::read_to_string(&self.complaints));
        }
        let _ = kill_process(Pid::from_child(&self.server), Signal::TERM);
        if !std::thread::panicking() {
            eventually("the server to end", || self.server.try_wait().expect("waiting for the server"));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_file(&self.complaints);
    }
}

//! A real registry on loopback: `docker-registry`, as `scripts/registry` starts it or by itself with TLS.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::{deadline, program};

/// A running registry; stopped and removed when dropped.
#[derive(Debug)]
pub struct Registry {
    directory: tempfile::TempDir,
    /// `HOST:PORT`.
    pub address: String,
    /// The process, where `scripts/registry` does not look after it.
    child: Option<Child>,
}

impl Registry {
    /// Starts an empty registry; `more` are further arguments of `scripts/registry start`.
    #[track_caller]
    pub fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = program::run(script("start").arg(directory.path()).args(more)).trim().to_owned();
        Self { directory, address, child: None }
    }

    /// Starts a registry that serves the data of `plain` over HTTPS with the key and the certificate in these files.
    #[track_caller]
    pub fn with_tls(plain: &Self, key: &str, certificate: &str) -> Self {
        let data = plain.directory.path().join("data");
        Self::serve(&data, "", &format!(", tls: {{certificate: {certificate}, key: {key}}}"))
    }

    /// Starts a registry that fetches what it is asked for from `origin`, and keeps it.
    #[track_caller]
    pub fn caching(origin: &Self) -> Self {
        let data = origin.directory.path().join("cache");
        Self::serve(&data, &format!("proxy: {{remoteurl: \"http://{}\"}}\n", origin.address), "")
    }

    /// Runs a registry on the directory `data` with more lines of configuration, and more about its HTTP.
    #[track_caller]
    fn serve(data: &Path, more: &str, http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n\
             http: {{addr: \"127.0.0.1:0\"{http}}}\n{more}",
            data.display()
        );
        let config_path = directory.path().join("config.yml");
        fs::write(&config_path, config).unwrap();
        let output = File::create(directory.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config_path)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut registry = Self { directory, address: String::new(), child: Some(child) };
        registry.address = deadline::within(Duration::from_secs(30), "docker-registry's start", || {
            listening(&registry.log())
        });
        registry
    }

    /// Pushes `tag` of an OCI layout as `name` (`library/app:1`).
    #[track_caller]
    pub fn push(&self, layout: &Path, tag: &str, name: &str) {
        program::run(script("push").arg(self.directory.path()).arg(layout).args([tag, name]));
    }

    /// Removes the manifest `digest` from `repository`.
    #[track_caller]
    pub fn delete(&self, repository: &str, digest: &str) {
        let image = format!("docker://{}/{repository}@{digest}", self.address);
        program::run(Command::new("skopeo").args([
            "--insecure-policy",
            "delete",
            "--tls-verify=false",
            &image,
        ]));
    }

    /// Returns how many GETs whose address contains `part` have completed.
    pub fn gets(&self, part: &str) -> usize {
        let log = self.log();
        let completed = log.lines().filter(|line| line.contains("response completed"));
        completed.filter(|line| line.contains("http.request.method=GET") && line.contains(part)).count()
    }

    /// Returns how many requests of this method have completed.
    pub fn requests(&self, method: &str) -> usize {
        let log = self.log();
        let completed = log.lines().filter(|line| line.contains("response completed"));
        completed.filter(|line| line.contains(&format!("http.request.method={method} "))).count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        match &mut self.child {
            Some(child) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            None => drop(program::run(script("stop").arg(self.directory.path()))),
        }
    }
}

/// Returns the address that a whole line of the log says the registry listens on.
fn listening(log: &str) -> Option<String> {
    let rest = &log[log.find("listening on 127.0.0.1:")? + "listening on ".len()..];
    let address = rest.split([',', '"', '\n']).next()?;
    log.contains('\n').then(|| address.to_owned())
}

fn script(action: &str) -> Command {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/registry");
    let mut command = Command::new(script);
    command.arg(action);
    command
}

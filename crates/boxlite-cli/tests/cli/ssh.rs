//! The recipe of docs/network-and-volumes.md: OpenSSH's own client, and an SSH server in a box without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, noise, run};
use sha2::{Digest, Sha256};

use crate::home::{Home, program};

/// An SSH client with the configuration that the recipe names, and a key of its own.
struct SshClient<'a> {
    home: &'a Home,
    directory: tempfile::TempDir,
}

impl<'a> SshClient<'a> {
    fn new(home: &'a Home) -> Self {
        let client = Self { home, directory: tempfile::tempdir().unwrap() };
        for key in ["key", "stranger"] {
            let file = client.file(key);
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
        }
        let lines = [
            "Host *.box".to_owned(),
            "    User root".to_owned(),
            format!(
                "    ProxyCommand sh -c 'exec {} port-forward --stdio \"${{0%%.box}}\" 22' %h",
                program()
            ),
            "    BatchMode yes\n    IdentitiesOnly yes\n    StrictHostKeyChecking accept-new".to_owned(),
            format!("    UserKnownHostsFile {}", client.file("known").display()),
        ];
        fs::write(client.file("config"), lines.join("\n")).unwrap();
        client
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `ssh`, `scp` or `sftp`, as the holder of the key.
    fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        self.run_as("key", tool, arguments, None)
    }

    fn run_as(&self, key: &str, tool: &str, arguments: &[&str], input: Option<&Path>) -> Output {
        let mut command = Command::new(tool);
        command.arg("-F").arg(self.file("config")).arg("-i").arg(self.file(key)).args(arguments);
        // The proxy command finds home and assets as a user's own does.
        for (name, value) in self.home.command(["ls"]).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let input = input.map_or_else(|| "/dev/null".into(), Path::to_owned);
        command.stdin(fs::File::open(input).unwrap());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        Output::of(command.spawn().expect("starting an SSH client"))
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// One boot for commands, an editor's way of starting its server, files, and three ways of being refused.
#[test]
fn an_ssh_client_reaches_a_box_by_the_proxy_command() {
    let Some(home) = Home::able() else { return };
    if !oracle::require("ssh") {
        return;
    }
    let client = SshClient::new(&home);
    home.run(&["run", "-d", "--name", "web", "--network", "none", &home.image("ssh")]).ok();
    home.run(&["exec", "web", "mkdir", "-p", "-m", "700", "/root/.ssh"]).ok();
    let key = client.file("key.pub");
    home.run(&["cp", key.to_str().unwrap(), "web:/root/.ssh/authorized_keys"]).ok();
    eventually("the SSH server", || client.run("ssh", &["web.box", "true"]).status.success().then_some(()));

    // Commands: their words, streams and status; an editor's way of starting its server.
    assert_eq!(client.run("ssh", &["web.box", "echo", "'a  b'", "$HOME"]).ok(), "a  b /root\n");
    assert_eq!(client.run("ssh", &["web.box", "echo no >&2; exit 7"]).code(), Some(7));
    let noise = noise(3 << 20);
    let (file, expected) = (client.file("noise"), digest(&noise));
    fs::write(&file, &noise).unwrap();
    let sum = client.run_as("key", "ssh", &["web.box", "sha256sum"], Some(&file));
    assert!(sum.ok().starts_with(&expected));
    let script = client.file("script");
    fs::write(&script, "echo from $0; exit 3\n").unwrap();
    let started = client.run_as(
        "key",
        "ssh",
        &["-T", "-o", "ConnectTimeout=15", "web.box", "--", "bash"],
        Some(&script),
    );
    assert_eq!((started.code(), started.text().trim()), (Some(3), "from bash"));

    // Files.
    let local = file.to_str().unwrap();
    client.run("scp", &["-q", local, "web.box:/root/noise"]).ok();
    let back = client.file("back");
    client.run("scp", &["-q", "web.box:/root/noise", back.to_str().unwrap()]).ok();
    assert_eq!(digest(&fs::read(&back).unwrap()), expected);
    let batch = client.file("batch");
    let copy = client.file("copy");
    fs::write(&batch, format!("rename /root/noise /root/other\nget /root/other {}\n", copy.display()))
        .unwrap();
    client.run("sftp", &["-q", "-b", batch.to_str().unwrap(), "web.box"]).ok();
    assert_eq!(digest(&fs::read(&copy).unwrap()), expected);

    // A stranger, a box that does not run, and none at all.
    let refused = client.run_as("stranger", "ssh", &["web.box", "true"], None);
    assert_eq!(refused.code(), Some(255));
    assert!(refused.err.contains("Permission denied"), "{}", refused.err);
    home.run(&["stop", "-t", "1", "web"]).ok();
    for (host, reason) in [("web.box", "box web does not run"), ("other.box", "there is no box 'other'")] {
        let failed = client.run("ssh", &[host, "true"]);
        assert_eq!(failed.code(), Some(255), "{host}");
        assert!(failed.err.contains(reason), "{host}: {}", failed.err);
    }
}

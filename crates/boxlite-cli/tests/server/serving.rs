//! A server of its own for each test, and a registry where one is needed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline::TEST_TIMEOUT;
use boxlite_testkit::registry::Registry;
use reqwest::{Method, RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::home::Home;

/// A running `boxlite serve`; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    http: reqwest::Client,
}

impl Server {
    /// Serves `home` on a port of its own.
    pub(crate) fn start(home: &Home, arguments: &[&str]) -> Self {
        Self::start_with(home, arguments, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on(home, 0, arguments, variables)
    }

    /// The same on a port: that of a server that was killed, for its clients to come back to.
    pub(crate) fn start_on(home: &Home, port: u16, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let port = port.to_string();
        let mut command = home.command(["serve", "--port", &port].iter().chain(arguments));
        command.envs(variables.iter().copied());
        Self::spawn(command)
    }

    /// Serves on a socket that this process keeps for the next server, as a service manager does; it is told of the server's
    /// states at `notify` in the home.
    pub(crate) fn start_handed(home: &Home, listener: &TcpListener, arguments: &[&str]) -> Self {
        let serve = home.command(["serve"].iter().chain(arguments));
        let mut command = Command::new("sh");
        let handing = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        command.args(["-c", handing, "sh"]).arg(serve.get_program()).args(serve.get_args());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("NOTIFY_SOCKET", home.path().join("notify"));
        let socket = OwnedFd::from(listener.try_clone().expect("a copy of the socket"));
        command.stdin(Stdio::from(socket)).stdout(Stdio::piped());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("starting boxlite serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
        let url = line.trim().strip_prefix("boxlite: serving on ").expect("where it serves").to_owned();
        let http =
            reqwest::Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().expect("an HTTP client");
        Self { child, url, http }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Status and JSON of an answer.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.request(method, path);
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// The JSON of an answer that is a success.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// The same for a POST.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// Begins a command and returns the path of its attachment, without the server.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> String {
        let body = serde_json::json!({"command": "sh", "args": ["-c", script]});
        let created = self.post(&format!("/v1/boxes/{id}/exec"), body).await;
        format!("/v1/boxes/{id}/executions/{}", created["execution_id"].as_str().expect("an id"))
    }

    /// The port that it serves on.
    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its descriptors").count()
    }

    /// KiB that it has resident.
    pub(crate) fn resident(&self) -> u64 {
        resident(self.child.id())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalling the server");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("waiting for the server")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KiB that a process has resident.
pub(crate) fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Status and JSON of an answer; a body that is no JSON is a string.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A program of the published clients; `None`, after saying so, where they are not installed.
pub(crate) fn client_program(name: &str) -> Option<PathBuf> {
    let assets = Assets::require()?;
    let path = assets.directory().join("clients").join(name);
    assets.has(&[&path]).then_some(path)
}

/// A file beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server").join(name)
}

/// Starts a registry that has the image `mini`, and returns it with what the image is called there.
pub(crate) fn registry_with_mini(home: &Home) -> (Registry, String) {
    let registry = Registry::start(&[]);
    registry.push(home.layout(), "mini", "library/mini:1");
    let image = format!("{}/library/mini:1", registry.address);
    (registry, image)
}

//! A server of its own for each test, and a registry where one is needed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use reqwest::{Method, RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::home::Home;
use crate::output::PATIENCE;

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
        let mut command = home.command(["serve", "--port", "0"].iter().chain(arguments));
        command.envs(variables.iter().copied()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("starting boxlite serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
        let url = line.trim().strip_prefix("boxlite: serving on ").expect("where it serves").to_owned();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("an HTTP client");
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

/// Status and JSON of an answer; a body that is no JSON is a string.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A program of the published clients; `None`, after saying so, where they are not installed.
pub(crate) fn client_program(name: &str) -> Option<PathBuf> {
    let path = crate::home::Machine::find()?.assets.join("clients").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "there is no {}; run scripts/test",
        path.display()
    );
    println!("SKIPPED: there is no {}; run scripts/test", path.display());
    None
}

/// A file beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server").join(name)
}

/// A real registry on loopback that has the image `mini`.
pub(crate) struct Registry {
    directory: tempfile::TempDir,
    /// What the image is called there.
    pub(crate) image: String,
}

impl Registry {
    pub(crate) fn with_mini(home: &Home) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().to_str().expect("a path").to_owned();
        let layout = home.layout().to_str().expect("a path");
        let address = script(&["start", &at]);
        script(&["push", &at, layout, "mini", "library/mini:1"]);
        Self { directory, image: format!("{}/library/mini:1", address.trim()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        script(&["stop", self.directory.path().to_str().unwrap_or_default()]);
    }
}

fn script(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/registry");
    let output = Command::new(script).args(arguments).output().expect("running scripts/registry");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

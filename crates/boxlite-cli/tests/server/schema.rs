//! `openapi.yaml` is what is served: schemathesis finds no answer that it does not describe.

use std::process::{Command, Stdio};

use boxlite_testkit::deadline::TEST_TIMEOUT;
use boxlite_testkit::program::Output;
use reqwest::Method;

use crate::home::Home;
use crate::serving::{Server, answer, client_program};

/// Real names for schemathesis, so that more than "not found" is tested.
const CONFIG: &str = r#"
[parameters]
"path.id" = "kept"

[[operations]]
include-operation-id = ["removeBox", "runtimeRemove"]
parameters = { "path.id" = "another" }

[[operations]]
# A volume of 16 TiB takes a gigabyte for its tables.
include-operation-id = ["upload", "runtimeLoad", "runtimeImport", "runtimeCreateVolume", "importBox", "runtimeImportBox"]
enabled = false
"#;

#[tokio::test]
async fn every_answer_is_as_described() {
    let Some(home) = Home::able() else { return };
    let Some(schemathesis) = client_program("bin/schemathesis") else { return };
    let key = home.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let arguments =
        ["--api-key-file", key.to_str().unwrap(), "--allow-path", home.layout().to_str().unwrap()];
    // The names of images that schemathesis makes up are asked for nowhere.
    let server = Server::start_with(&home, &arguments, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    let body = serde_json::json!({"image": home.image("mini"), "name": "kept", "memory_mib": 128});
    let created = answer(server.request(Method::POST, "/v1/boxes").bearer_auth("secret").json(&body)).await;
    assert_eq!(created.0.as_u16(), 201, "{}", created.1);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("schemathesis.toml"), CONFIG).unwrap();
    let mut command = Command::new(schemathesis);
    command.current_dir(directory.path()).args(["run", &format!("{}/openapi.yaml", server.url)]);
    command.args(["--header", "Authorization: Bearer secret", "--phases", "coverage,fuzzing", "-n", "3"]);
    // Whether data that fits the description is accepted depends on what there is; 4xx is an answer as well.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    // One worker: with several, CPython 3.11's parser confuses the depths of their recursions and fails now and then.
    command.args(["--continue-on-failure", "--no-color", "--workers", "1", "--request-timeout", "60"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let report = Output::within(command.spawn().expect("starting schemathesis"), 4 * TEST_TIMEOUT);
    assert_eq!(report.code(), Some(0), "{}{}", report.text(), report.err);
}

//! The published clients run whole sessions.

use std::process::{Command, Stdio};

use boxlite_testkit::oracle;
use boxlite_testkit::program::Output;

use crate::home::Home;
use crate::serving::{Server, beside, client_program, registry_with_mini};

/// Runs a client's script, which fails where the server does not do what it must.
fn session(program: &std::path::Path, script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .arg(beside(script))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Output::of(command.spawn().expect("starting a client"))
}

#[test]
fn the_published_python_client_runs_a_whole_session() {
    let Some(home) = Home::able() else { return };
    let Some(python) = client_program("bin/python") else { return };
    let (registry, image) = registry_with_mini(&home);
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&home, &["--allow-registry", &registry.address]);
    let done = session(&python, "session.py", &[&server.url, &image, scratch.path().to_str().unwrap()]);
    assert!(done.ok().ends_with("done\n"));
}

#[test]
fn the_published_python_client_understands_what_went_wrong() {
    let Some(home) = Home::able() else { return };
    let Some(python) = client_program("bin/python") else { return };
    home.run(&["create", "--name", "kept", &home.image("mini"), "true"]).ok();
    // The box exists, and then no filesystem has room enough for a start.
    let server = Server::start_with(
        &home,
        &[],
        &[("BOXLITE_HARD_FLOOR", "1024TiB"), ("BOXLITE_SOFT_FLOOR", "1024TiB")],
    );
    session(&python, "errors.py", &[&server.url, "kept"]).ok();
    assert_eq!(home.run(&["inspect", "kept"]).json()[0]["state"], "created", "the refusal changed the box");
}

#[test]
fn the_published_node_client_runs_a_session() {
    let Some(home) = Home::able() else { return };
    if ["node", "npm"].iter().any(|program| Command::new(program).arg("--version").output().is_err()) {
        oracle::skip_even_in_ci("there is no node, or no npm, on this machine");
        return;
    }
    let Some(package) = client_program("node/node_modules/@boxlite-ai/boxlite") else { return };
    let (registry, image) = registry_with_mini(&home);
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&home, &["--allow-registry", &registry.address]);
    let entry = package.join("dist/index.js");
    let arguments = [entry.to_str().unwrap(), &server.url, &image, scratch.path().to_str().unwrap()];
    assert!(session(std::path::Path::new("node"), "session.mjs", &arguments).ok().ends_with("done\n"));
}

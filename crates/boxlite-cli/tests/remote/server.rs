//! Which server is meant, what is the server's, and that both ends say the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;

use boxlite_testkit::deadline::eventually;
use boxlite_testkit::program::{Output, hinted};
use rustix::process::Signal;

use crate::home::Home;
use crate::reach::Reach;

#[test]
fn a_server_and_a_home_of_this_host_contradict_each_other() {
    let home = Home::bare();
    let url = home.reach().url();
    home.run(&["--url", &url, "--home", "/x", "ls"]).refused("--url and --home");
    home.run(&["--url", &url, "--accel", "tcg", "ls"]).refused("--url and --accel");
    home.run(&["--url", "nonsense", "ls"]).refused("nonsense");
    hinted(&home.run(&["--url", "http://127.0.0.1:1", "ls"]).refused("http://127.0.0.1:1"));
    let mut local = home.command(["--api-key-file", "/dev/null", "ls"]);
    local.env_remove("BOXLITE_REST_URL").env("BOXLITE_HOME", home.path());
    hinted(&Output::of(local.spawn().unwrap()).refused("--api-key-file"));
}

#[test]
fn what_is_no_boxlite_server_is_told_apart() {
    let home = Home::bare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            // A connection that is closed with something unread is reset, and the answer may be lost.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    hinted(&home.run(&["--url", &url, "ls"]).refused("no boxlite server"));
    hinted(&home.run(&["--url", &url, "run", "alpine"]).refused("no boxlite server"));
}

#[test]
fn the_key_decides() {
    let home = Home::bare();
    let key = home.path().join("key");
    fs::write(&key, "correct-horse\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    let served = Home::bare();
    let guarded = Reach::with(served.path(), None, &["--api-key-file", key]);
    let url = guarded.url();
    hinted(&home.run(&["--url", &url, "ls"]).refused("asks for an API key"));
    home.run(&["--url", &url, "--api-key-file", key, "ls"]).ok();
    let with = |value: &str| {
        Output::of(home.command(["--url", &url, "ls"]).env("BOXLITE_API_KEY", value).spawn().unwrap())
    };
    with("correct-horse").ok();
    hinted(&with("wrong").refused("does not accept the API key"));
    assert!(!with("wr\u{f6}ng").err.contains("panicked"));
    home.run(&["--url", &url, "--api-key-file", "/no/such/key", "ls"]).refused("/no/such/key");
}

#[test]
fn garbage_is_collected_on_the_servers_host() {
    let home = Home::bare();
    let error = home.run(&["gc"]).refused("on that host");
    assert!(!error.contains("hint: "), "{error}");
}

/// The text is compared, not only its meaning.
#[test]
fn both_ways_show_the_same() {
    let Some(home) = Home::able() else { return };
    home.run(&["create", "--name", "one", "-l", "a=b", &home.image("mini"), "true"]).ok();
    home.run(&["run", "--name", "two", &home.image("mini"), "sh", "-c", "echo out; echo err >&2; exit 3"]);
    let here = home.path().to_str().unwrap();
    for line in [
        &["ls", "-a", "--format", "json"][..],
        &["ls", "-a", "-s"],
        &["inspect", "one", "two"],
        &["inspect", "nobody"],
        &["images", "--format", "json"],
        &["system", "df"],
        &["system", "df", "-v", "--format", "json"],
        &["system", "df", "--tree", "-v"],
        &["system", "df", "--tree", "--format", "json"],
        &["logs", "two"],
        &["logs", "-t", "two"],
        &["wait", "two"],
        &["rmi", "nothing"],
        &["exec", "two", "true"],
        &["kill", "two"],
        &["start", "nobody"],
        &["cp", "two:/x", "-"],
    ] {
        let both = || [home.run(line), home.run(&[&["--home", here], line].concat())];
        let text = |output: &Output| (output.code(), output.text(), output.err.clone());
        let [mut far, mut near] = both();
        // Ages are in seconds for a minute, and one may pass in between.
        let mut tries = if line.contains(&"-s") { 100 } else { 0 };
        while text(&far) != text(&near) && tries > 0 {
            (tries, [far, near]) = (tries - 1, both());
        }
        assert_eq!(text(&far), text(&near), "{line:?}");
    }
    let steady = |mut info: serde_json::Value| {
        // Free space moves.
        info["space"] = serde_json::Value::Null;
        info
    };
    let (far, near) =
        (home.run(&["info", "--format", "json"]), home.run(&["--home", here, "info", "--format", "json"]));
    let home_line = |info: &serde_json::Value| info["home"].clone();
    let (far, near) = (steady(far.json()), steady(near.json()));
    assert_eq!(
        (home_line(&far), &far["assets"], &far["boxes"]),
        (home_line(&near), &near["assets"], &near["boxes"])
    );
}

#[test]
fn paths_are_the_servers() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "oci:layout:mini"]).refused("on the server");
    home.run(&["create", "-v", "./here:/x", &home.image("mini")]).refused("on the server");
    let strict = Home::bare();
    let narrow = Reach::with(strict.path(), None, &[]);
    home.run(&["--url", &narrow.url(), "pull", &home.image("mini")]).refused("--allow-path");
    let shared = tempfile::tempdir().unwrap();
    fs::write(shared.path().join("note"), "from the host\n").unwrap();
    let volume = format!("{}:/shared:ro", shared.path().display());
    let output = home.run(&["run", "--rm", "-v", &volume, &home.image("mini"), "cat", "/shared/note"]);
    assert_eq!(output.ok(), "from the host\n");
}

#[test]
fn boxes_outlive_their_server() {
    let Some(home) = Home::able() else { return };
    home.sleeper("survivor");
    home.reach().signal(Signal::TERM);
    eventually("the server to be gone", || home.reach().has_ended().then_some(()));
    let next = Reach::of(home.path(), None);
    assert_eq!(home.run(&["--url", &next.url(), "exec", "survivor", "echo", "here"]).ok(), "here\n");
    home.run(&["--url", &next.url(), "rm", "-f", "survivor"]).ok();
}

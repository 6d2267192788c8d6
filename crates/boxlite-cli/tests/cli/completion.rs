//! Completion as a shell asks for it, and the manual pages.

use std::path::Path;
use std::process::{Command, Stdio};

use boxlite_testkit::program::Output;

use crate::home::{Home, program};

/// What bash offers for the last of `words`, after it has read the completion script.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let script = "source <(boxlite completion bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                  _clap_complete_boxlite boxlite \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).args(words).env("BOXLITE_HOME", home.path());
    let path =
        format!("{}:{}", Path::new(program()).parent().unwrap().display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env_remove("BOXLITE_REST_URL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = Output::of(command.spawn().unwrap());
    assert!(output.err.is_empty(), "{words:?}: {}", output.err);
    output.ok().lines().filter(|word| !word.is_empty() && !word.starts_with('-')).map(str::to_owned).collect()
}

/// Mutations tried: without `with_first_word_apart`, boxes are offered as the command of `exec`; with the time-out made
/// outside of the runtime, nothing is offered and a panic is printed.
#[test]
fn bash_completes_commands_and_the_names_of_boxes_and_images() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    for name in ["alpha", "album", "beta"] {
        home.run(&["create", "--name", name, &image, "true"]).ok();
    }
    assert_eq!(offered(&home, &["boxlite", "inf"]), ["info"]);
    let mut offers = offered(&home, &["boxlite", "rm", "beta", "al"]);
    offers.sort();
    assert_eq!(offers, ["album", "alpha"]);
    assert_eq!(offered(&home, &["boxlite", "exec", "-it", "be"]), ["beta"]);
    assert_eq!(offered(&home, &["boxlite", "exec", "beta", "al"]), [""; 0]);
    assert_eq!(offered(&home, &["boxlite", "rmi", "oci"]).len(), 1);
    assert_eq!(offered(&home, &["boxlite", "inspect", ""]).len(), 4);
    let nothing = Home::bare();
    assert_eq!(offered(&nothing, &["boxlite", "rm", "al"]), [""; 0]);
    assert_eq!(nothing.path().read_dir().unwrap().count(), 0, "a question makes no home");
}

#[test]
fn each_command_has_a_manual_page() {
    let home = Home::bare();
    let pages = tempfile::tempdir().unwrap();
    home.run(&["man", pages.path().to_str().unwrap()]).ok();
    let page = std::fs::read_to_string(pages.path().join("boxlite-run.1")).unwrap();
    assert!(page.contains("boxlite\\-run") && page.contains("IMAGE"), "{page}");
    assert!(pages.path().join("boxlite.1").is_file());
    home.run(&["man", "/no/such/directory"]).refused("writing the manual pages to /no/such/directory failed");
}

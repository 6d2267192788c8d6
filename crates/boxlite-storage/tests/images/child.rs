//! Pulls and builds in processes of their own: this very test program, started again.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use boxlite_home::Home;
use boxlite_storage::reference::Reference;
use boxlite_types::PullOptions;

/// The result of a child process.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) killed: bool,
    /// `ok DIGEST` or `error KIND: MESSAGE`; empty when it was killed.
    pub(crate) said: String,
}

/// Starts a process that pulls `reference` into `home`, and with `build` makes the disk image too.
pub(crate) fn start(home: &Path, reference: &str, build: bool, env: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::pull", "--ignored", "--nocapture"])
        .env("BOXLITE_TEST_CHILD_HOME", home)
        .env("BOXLITE_TEST_CHILD_REFERENCE", reference)
        .env("BOXLITE_TEST_CHILD_BUILD", if build { "1" } else { "" })
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix("child: ")).unwrap_or_default().to_owned();
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(killed || !said.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Outcome { killed, said }
}

pub(crate) fn run(home: &Path, reference: &str, build: bool, env: &[(&str, &str)]) -> Outcome {
    finish(start(home, reference, build, env))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as a child of other tests"]
async fn pull() {
    let Some(home) = std::env::var_os("BOXLITE_TEST_CHILD_HOME") else { return };
    let reference: Reference = std::env::var("BOXLITE_TEST_CHILD_REFERENCE").unwrap().parse().unwrap();
    let build = std::env::var("BOXLITE_TEST_CHILD_BUILD").is_ok_and(|value| !value.is_empty());
    let work = async {
        let home = Home::open(Path::new(&home))?;
        let config =
            std::env::var_os("DOCKER_CONFIG").map(|directory| Path::new(&directory).join("config.json"));
        let images = crate::fixture::open_images(&home)?.with_registry_config(config);
        if std::env::var_os("BOXLITE_TEST_CHILD_FETCH").is_some() {
            let Reference::Registry(reference) = &reference else { panic!("{reference} is of no registry") };
            let options = boxlite_types::DiskImageFetchOptions::default();
            let fetched = images.fetch_disk_image(reference, &options, std::sync::Arc::new(())).await?;
            return Ok(fetched.image);
        }
        let image = images.pull(&reference, &PullOptions::default(), std::sync::Arc::new(())).await?;
        if build {
            boxlite_storage::disk_image::ensure(&images, &image, crate::disk::VIRTUAL, &())?;
        }
        Ok::<_, boxlite_types::Error>(image)
    };
    match work.await {
        Ok(image) => println!("\nchild: ok {}", image.digest),
        Err(error) => println!("\nchild: error {}: {error}", error.kind()),
    }
}

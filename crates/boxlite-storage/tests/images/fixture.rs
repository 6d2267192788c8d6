//! Homes, and images made by umoci and skopeo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use boxlite_home::Home;
use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::gc::Automatic;
use boxlite_storage::image::Images;
use boxlite_storage::reference::Reference;
use boxlite_storage::store::Store;
use boxlite_types::{Error, Image, PullOptions};

/// A home in a directory of its own.
pub(crate) struct Scratch {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) home: Home,
    pub(crate) images: Images,
}

/// The images of `home` as a runtime opens them: with its database, settings and automatic gc.
pub(crate) fn open_images(home: &Home) -> Result<Images, Error> {
    let settings = Settings::load(home, &SettingsVariables::default(), &SettingsOptions::default())?;
    let store = Store::open(&home.database())?;
    let collector = Automatic::new(home.clone(), Arc::new(store.clone()), settings.clone());
    Ok(Images::new(home.clone(), store, settings, Arc::new(collector)))
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&directory.path().join("home")).unwrap();
        let images = open_images(&home).unwrap();
        Self { directory, home, images }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result<Image, Error> {
        let reference: Reference = reference.parse()?;
        self.images.pull(&reference, &PullOptions::default(), Arc::new(())).await
    }

    /// Names in the blob store, sorted.
    pub(crate) fn blobs(&self) -> Vec<String> {
        names(&self.home.blobs())
    }

    /// Names in the staging directory.
    pub(crate) fn staged(&self) -> Vec<String> {
        names(&self.home.tmp())
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a program that must succeed and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); apt-get install umoci skopeo docker-registry")
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}

pub(crate) fn skopeo(from: &str, to: &str, more: &[&str]) {
    let mut arguments = vec!["--insecure-policy", "copy", "--quiet"];
    arguments.extend_from_slice(more);
    arguments.extend_from_slice(&[from, to]);
    run("skopeo", &arguments);
}

/// A tar file at `path` with one regular file of `bytes` bytes that do not compress.
pub(crate) fn tar_of(path: &Path, name: &str, bytes: usize) {
    let mut contents = vec![0; bytes];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64 ^ name.bytes().map(u64::from).sum::<u64>();
    for byte in &mut contents {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    builder.append_data(&mut header, name, &contents[..]).unwrap();
    builder.into_inner().unwrap();
}

/// An OCI layout made by umoci, with an image `tag` of one layer for each of `layers` (name, bytes).
pub(crate) fn layout(directory: &Path, tag: &str, layers: &[(&str, usize)]) {
    let at = directory.to_str().unwrap();
    if !directory.exists() {
        run("umoci", &["init", "--layout", at]);
    }
    let image = format!("{at}:{tag}");
    run("umoci", &["new", "--image", &image]);
    for (name, bytes) in layers {
        let tar = tempfile::NamedTempFile::new().unwrap();
        tar_of(tar.path(), name, *bytes);
        run("umoci", &["raw", "add-layer", "--image", &image, tar.path().to_str().unwrap()]);
    }
    let settings = [
        "config",
        "--image",
        &image,
        "--config.entrypoint",
        "/bin/tool",
        "--config.cmd",
        "--help",
        "--config.env",
        "PATH=/usr/bin:/bin",
        "--config.user",
        "1000:1000",
        "--config.workingdir",
        "/work",
        "--config.stopsignal",
        "SIGINT",
        "--config.label",
        "purpose=test",
        "--config.exposedports",
        "80/tcp",
        "--architecture",
        "amd64",
        "--os",
        "linux",
    ];
    run("umoci", &settings);
    run("umoci", &["gc", "--layout", at]);
}

/// SHA-256 of the files in the blob store must be their names.
pub(crate) fn assert_blobs_intact(scratch: &Scratch) {
    for name in scratch.blobs() {
        let path = scratch.home.blobs().join(&name);
        let printed = run("sha256sum", &[path.to_str().unwrap()]);
        assert_eq!(printed.split_whitespace().next(), Some(name.as_str()));
    }
}

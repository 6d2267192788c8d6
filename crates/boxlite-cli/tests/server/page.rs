//! The page for people, in a real browser, against a home with hundreds of boxes.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use boxlite_testkit::assets::Assets;
use boxlite_testkit::oracle;
use boxlite_testkit::program::Output;
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::home::Home;
use crate::refusals::key;
use crate::serving::{Server, answer, beside};

const BOXES: usize = 240;
const KEY: &str = "page-key";
/// A volume's directory that nothing explains, with a name that must stay text.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

/// What npm installed from the page's lock file: the libraries that it embeds, and what drives a browser.
fn packages() -> Option<PathBuf> {
    if !oracle::require("chromium-headless-shell") {
        return None;
    }
    if Command::new("npm").arg("--version").output().is_err() {
        oracle::skip_even_in_ci("there is no npm on this machine");
        return None;
    }
    let assets = Assets::require()?;
    let modules = assets.directory().join("page/node_modules");
    assets.has(&[&modules]).then_some(modules)
}

/// Makes a file of so many bytes that are allocated and a day old.
fn aged(path: &Path, bytes: usize) {
    std::fs::write(path, vec![1; bytes]).unwrap();
    let then = SystemTime::now() - Duration::from_secs(86_400);
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
}

/// Hundreds of boxes that were never started, each with a disk of its own size; three disk images that nobody needs.
async fn craft(home: &Home, server: &Server) {
    let image = home.image("mini");
    let created = futures::stream::iter(0..BOXES).map(|index| {
        let body = json!({"image": image, "name": format!("job-{index:03}"), "memory_mib": 128});
        answer(server.request(Method::POST, "/v1/boxes").bearer_auth(KEY).json(&body))
    });
    let created: Vec<_> = created.buffer_unordered(16).collect().await;
    let ids: Vec<String> = created
        .into_iter()
        .map(|(status, body)| {
            assert_eq!(status.as_u16(), 201, "{body}");
            body["box_id"].as_str().expect("its id").to_owned()
        })
        .collect();
    let (_, first) =
        answer(server.request(Method::GET, &format!("/v1/runtime/boxes/{}", ids[0])).bearer_auth(KEY)).await;
    let images = home.path().join("images/disk-images");
    let disk_image = images.join(format!("{}.ext4", first["disk_digest"].as_str().expect("its disk image")));
    if !disk_image.exists() {
        aged(&disk_image, 1 << 20);
    }
    for index in 0..3 {
        aged(&images.join(format!("{}.ext4", format!("{index}f").repeat(32))), (index + 1) << 20);
    }
    let overlay = home.path().join("overlay.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([disk_image.as_os_str(), overlay.as_os_str(), "1G".as_ref()])
        .status();
    assert!(made.unwrap().success());
    let mut disk = std::fs::read(&overlay).unwrap();
    std::fs::remove_file(&overlay).unwrap();
    disk.resize(1 << 20, 1);
    for (index, id) in ids.iter().enumerate() {
        let disks = home.path().join("boxes").join(id).join("disks");
        std::fs::create_dir_all(&disks).unwrap();
        std::fs::write(disks.join("root.qcow2"), &disk[..(256 + index * 3) << 10]).unwrap();
    }
    std::fs::create_dir_all(home.path().join("volumes").join(MARKUP)).unwrap();
    std::fs::write(home.path().join("volumes").join(MARKUP).join("file"), vec![1; 64 << 10]).unwrap();
}

/// The script says what is looked at, one sentence each.
///
/// Mutations tried on the page, each of which fails: the key kept in the browser's storage; no Escape in the treemap, or the
/// first tile held after it; a collection without asking, or on Cancel; reasons left out; events asked for once; fainter
/// text; a table that is too wide; a control without a name; a question to another host; a name as markup; a larger
/// heading, or another accent (the pictures).
#[tokio::test]
async fn the_page_in_a_browser() {
    let Some(home) = Home::able() else { return };
    let Some(packages) = packages() else { return };
    let path = key(&home, KEY, 0o600);
    let layout = home.layout().to_str().unwrap();
    let keyed = ["--api-key-file", path.to_str().unwrap(), "--allow-path", layout, "--gc-interval", "off"];
    // The share that a page shows, and that the homes of tests are without.
    let floors = [("BOXLITE_SOFT_PERCENT", "10")];
    let server = Server::start_with(&home, &keyed, &floors);
    craft(&home, &server).await;
    let open = Server::start_with(&home, &["--gc-interval", "off"], &floors);
    // Built-in fonts, whatever else this machine has: the pictures must be the same everywhere.
    let fonts = home.path().join("fonts.conf");
    let cache = home.path().join("fonts");
    let config = std::fs::read_to_string(beside("page/fonts.conf")).unwrap();
    std::fs::write(&fonts, config.replace("CACHE", cache.to_str().unwrap())).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut command = Command::new("node");
    command.arg(beside("page/browse.mjs")).arg(packages.join("playwright-core/index.mjs"));
    command.args([&server.url, KEY, &open.url, docs.to_str().unwrap(), home.path().to_str().unwrap()]);
    command.env("FONTCONFIG_FILE", &fonts).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = Output::of(command.spawn().expect("starting node"));
    assert!(done.ok().ends_with("done\n"));
    // No box has run, so that the home may go as a directory, where it would remove one box after the other.
    std::fs::remove_file(home.path().join("boxlite.db")).unwrap();
}

/// A file's bytes are those that npm got for the lock file's digest; `scripts/vendor-page` copies them.
#[test]
fn the_embedded_libraries_are_those_of_the_lock_file() {
    let Some(packages) = packages() else { return };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boxlite-server/page");
    let lock: Value =
        serde_json::from_slice(&std::fs::read(page.join("package-lock.json")).unwrap()).unwrap();
    let installed: Value =
        serde_json::from_slice(&std::fs::read(packages.join(".package-lock.json")).unwrap()).unwrap();
    for name in ["d3-hierarchy", "uplot", "playwright-core"] {
        let entry = |lock: &Value| lock["packages"][format!("node_modules/{name}")]["integrity"].clone();
        assert!(entry(&lock).is_string(), "{name}");
        assert_eq!(entry(&lock), entry(&installed), "{name}: run scripts/setup --test again");
    }
    let listed = std::fs::read_to_string(page.join("vendor/FILES")).unwrap();
    let files: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(files.len(), 5);
    for (file, origin) in files {
        let [embedded, original] = [page.join("vendor").join(file), packages.join(origin)]
            .map(|path| std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        assert!(embedded == original, "{file} is not {origin}");
    }
}

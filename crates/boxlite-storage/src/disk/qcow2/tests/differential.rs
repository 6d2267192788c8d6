//! The qcow2 reader against `qemu-img info`, on overlays made by `qemu-img` in every option it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_home::durable::FileId;
use boxlite_testkit::oracle;

use super::super::header::HeaderError;
use super::super::{BackingFormat, ChainLink, Chains, Qcow2Header};
use super::follow_file;

fn qemu_img(directory: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("qemu-img").current_dir(directory).args(arguments).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The identities of the files below `top`, by qemu-img's account.
fn chain_of(directory: &Path, top: &Path) -> Vec<FileId> {
    let info =
        qemu_img(directory, &["info", "-U", "--backing-chain", "--output=json", top.to_str().unwrap()])
            .unwrap();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let below = info.as_array().unwrap().iter().skip(1);
    below
        .map(|node| {
            FileId::of(&std::fs::metadata(directory.join(node["filename"].as_str().unwrap())).unwrap())
        })
        .collect()
}

#[test]
fn every_overlay_that_qemu_img_makes_is_read_as_qemu_img_reads_it() {
    if !oracle::require("qemu-img") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    qemu_img(directory.path(), &["create", "-f", "raw", "root.ext4", "64M"]).unwrap();
    let root = at("root.ext4").display().to_string();
    qemu_img(directory.path(), &["create", "-f", "qcow2", "-b", &root, "-F", "raw", "base.qcow2"]).unwrap();
    std::os::unix::fs::symlink(at("base.qcow2"), at("alias.qcow2")).unwrap();
    let base = at("base.qcow2").display().to_string();
    let secret = "secret,id=s,data=abc";
    let options = [
        "compat=0.10",
        "compat=1.1",
        "compat=v2",
        "compat=v3",
        "cluster_size=512",
        "cluster_size=4096",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "refcount_bits=1",
        "refcount_bits=64",
        "extended_l2=on,cluster_size=128k",
        "compression_type=zstd",
        "compression_type=zlib",
        "preallocation=off",
        "preallocation=metadata",
        "preallocation=falloc,extended_l2=on",
        "nocow=on",
        "size=128M",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "encrypt.format=aes,encrypt.key-secret=s",
    ];
    let backings = [
        (root.as_str(), "raw"),
        ("root.ext4", "raw"),
        ("./root.ext4", "raw"),
        (base.as_str(), "qcow2"),
        ("base.qcow2", "qcow2"),
        ("alias.qcow2", "qcow2"),
    ];
    let (mut compared, mut refused) = (0, Vec::new());
    for option in options {
        for (backing, format) in backings {
            let _ = std::fs::remove_file(at("top.qcow2"));
            let arguments = [
                "create",
                "-q",
                "--object",
                secret,
                "-f",
                "qcow2",
                "-b",
                backing,
                "-F",
                format,
                "-o",
                option,
                "top.qcow2",
            ];
            if let Err(error) = qemu_img(directory.path(), &arguments) {
                refused.push(format!("{option} over {backing}: {error}"));
                continue;
            }
            let info = qemu_img(directory.path(), &["info", "-U", "--output=json", "top.qcow2"]).unwrap();
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            let bytes = std::fs::read(at("top.qcow2")).unwrap();
            let header =
                Qcow2Header::parse(&bytes).unwrap_or_else(|bad| panic!("{option} over {backing}: {bad}"));
            let found = header.backing.unwrap();
            assert_eq!(header.virtual_size, info["virtual-size"], "{option}");
            assert_eq!(header.cluster, info["cluster-size"], "{option}");
            assert_eq!(std::str::from_utf8(found.name).unwrap(), info["backing-filename"], "{option}");
            let named = if format == "raw" { BackingFormat::Raw } else { BackingFormat::Qcow2 };
            assert_eq!(found.format, named, "{option}");
            let mut chains = Chains::new(None);
            let followed = follow_file(&mut chains, &at("top.qcow2")).unwrap().unwrap();
            let expected = chain_of(directory.path(), Path::new("top.qcow2"));
            assert_eq!(chains.below(followed.backing), (expected, ChainLink::End), "{option} over {backing}");
            compared += 1;
        }
    }
    println!("{compared} overlays compared; qemu-img itself refused: {refused:#?}");
    assert!(compared >= 80, "only {compared} overlays were compared: {refused:#?}");
}

/// A chain that cannot be followed is unknown, never empty.
#[test]
fn what_qemu_img_can_name_but_we_do_not_follow_is_unknown() {
    if !oracle::require("qemu-img") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    qemu_img(directory.path(), &["create", "-f", "raw", "root.ext4", "64M"]).unwrap();
    let top = |arguments: &[&str]| {
        let _ = std::fs::remove_file(at("top.qcow2"));
        qemu_img(directory.path(), arguments).map(|_| ())
    };
    let unknown = || match follow_file(&mut Chains::new(None), &at("top.qcow2")) {
        Err(_) => true,
        Ok(found) => matches!(found.unwrap().backing, ChainLink::Unknown(_)),
    };
    let root = at("root.ext4").display().to_string();
    let json =
        format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{root}\"}}}}");
    for backing in [json.as_str(), "nbd://127.0.0.1:1/x", "fat:/tmp", "https://127.0.0.1:1/x"] {
        top(&["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", "top.qcow2", "64M"]).unwrap();
        assert!(unknown(), "{backing}");
    }
    top(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "top.qcow2", "64M"]).unwrap();
    assert!(unknown(), "data_file");
    assert_eq!(Qcow2Header::parse(&std::fs::read(at("top.qcow2")).unwrap()), Err(HeaderError::ExternalData));
    top(&["create", "-q", "-u", "-f", "qcow2", "-b", &root, "-F", "vmdk", "top.qcow2", "64M"]).unwrap();
    assert!(unknown(), "vmdk");
    // `file:` is a path after all.
    top(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        &format!("file:{root}"),
        "-F",
        "raw",
        "top.qcow2",
        "64M",
    ])
    .unwrap();
    assert!(!unknown(), "file:");
    // Other snapshots, bitmaps and a rebase leave the chain readable.
    top(&["create", "-q", "-f", "qcow2", "-b", &root, "-F", "raw", "top.qcow2"]).unwrap();
    qemu_img(directory.path(), &["bitmap", "--add", "top.qcow2", "b0"]).unwrap();
    qemu_img(directory.path(), &["snapshot", "-c", "s0", "top.qcow2"]).unwrap();
    assert!(!unknown(), "bitmap and snapshot");
}

/// The fuzzer's seeds, in the ordinary suite: what `qemu-img` made is read, and so are whole
/// headers of deltas; everything else is refused or unknown.
#[test]
fn the_corpus_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/qcow2_header");
    let mut seen = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("seed-") {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top.qcow2");
        std::fs::copy(&path, &top).unwrap();
        let mut chains = Chains::new(None);
        let read = follow_file(&mut chains, &top)
            .is_ok_and(|found| !matches!(found.unwrap().backing, ChainLink::Unknown(_)));
        let is_good = name.starts_with("seed-qemu") || name.starts_with("seed-delta-good");
        assert_eq!(read, is_good, "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} seeds were found in {}", corpus.display());
}

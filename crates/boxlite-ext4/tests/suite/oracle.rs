//! The oracles: umoci, e2fsck, the kernel's ext4 and a comparison of two trees.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use boxlite_ext4::{BuildError, BuildOptions, BuildReport, build};

use boxlite_testkit::program::run;
use boxlite_testkit::{deadline, oracle};

use crate::archive::{Blob, Compression, sha256};

pub(crate) const IDENTITY: [u8; 32] = [7; 32];

/// Returns whether what needs root, loop devices and umoci can run; calls [`skip`](boxlite_testkit::oracle::skip) if not.
#[track_caller]
pub(crate) fn able(test: &str) -> bool {
    oracle::require("umoci") && oracle::require("e2fsck") && oracle::require_root(test)
}

pub(crate) fn options() -> BuildOptions {
    BuildOptions::new(IDENTITY)
}

/// Builds an image at a path.
pub(crate) fn build_at(
    path: &Path,
    blobs: &[Blob],
    options: &BuildOptions,
) -> Result<BuildReport, BuildError> {
    let file = File::create_new(path).unwrap();
    let layers = blobs.iter().enumerate().map(|(number, blob)| blob.layer(number)).collect();
    build(layers, &file, options, &mut |_| ControlFlow::Continue(()))
}

/// Runs e2fsck over an image without changing it; anything but "clean" fails.
pub(crate) fn check(image: &Path) {
    let output = Command::new("e2fsck").arg("-fn").arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "e2fsck -fn: {text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A loop mount, undone when dropped.
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
}

impl Mount {
    pub(crate) fn new(image: &Path, at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(image).arg(at));
        Self { at: at.to_owned() }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Busy for an instant: a process that another test starts has a copy of each of our descriptors.
        deadline::until(Duration::from_secs(5), &format!("unmounting {}", self.at.display()), || {
            Command::new("umount").arg(&self.at).output().unwrap().status.success()
        });
    }
}

/// Writes an OCI image layout with these layers, tagged `test`.
pub(crate) fn layout(at: &Path, blobs: &[Blob]) {
    let store = at.join("blobs/sha256");
    fs::create_dir_all(&store).unwrap();
    let put = |bytes: &[u8]| {
        let digest = hex::encode(sha256(bytes));
        fs::write(store.join(&digest), bytes).unwrap();
        format!("\"digest\":\"sha256:{digest}\",\"size\":{}", bytes.len())
    };
    let ids: Vec<_> = blobs.iter().map(|blob| format!("\"sha256:{}\"", hex::encode(blob.diff_id))).collect();
    let config = put(format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}},\"config\":{{}}}}",
        ids.join(",")
    )
    .as_bytes());
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| {
            let suffix = match blob.compression {
                Compression::None => "",
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
            };
            format!(
                "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar{suffix}\",{}}}",
                put(&blob.bytes)
            )
        })
        .collect();
    let manifest = put(format!(
        "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",{config}}},\"layers\":[{}]}}",
        layers.join(",")
    )
    .as_bytes());
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",{manifest},\"annotations\":{{\"org.opencontainers.image.ref.name\":\"test\"}}}}]}}"
    );
    fs::write(at.join("index.json"), index).unwrap();
    fs::write(at.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// Unpacks layers by umoci; the root of the result.
pub(crate) fn unpack(scratch: &Path, blobs: &[Blob]) -> PathBuf {
    // This umoci knows no zstd; what it unpacks must be the same tar.
    let blobs: Vec<_> = blobs
        .iter()
        .map(|blob| match blob.compression {
            Compression::Zstd => {
                Blob::new(&zstd::decode_all(blob.bytes.as_slice()).unwrap(), Compression::Gzip)
            }
            _ => blob.clone(),
        })
        .collect();
    let (image, bundle) = (scratch.join("layout"), scratch.join("bundle"));
    layout(&image, &blobs);
    run(Command::new("umoci")
        .arg("unpack")
        .arg("--image")
        .arg(format!("{}:test", image.display()))
        .arg(&bundle));
    bundle.join("rootfs")
}

/// The whole check of a stack of layers: builds, checks, mounts, unpacks by umoci and compares.
pub(crate) fn verify(test: &str, blobs: &[Blob], options: &BuildOptions) -> Option<BuildReport> {
    if !able(test) {
        return None;
    }
    let started = now();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image.ext4");
    let report = build_at(&image, blobs, options).unwrap();
    check(&image);
    let mount = Mount::new(&image, &scratch.path().join("mount"), "ro,loop");
    let reference = unpack(scratch.path(), blobs);
    assert_same(&mount.at, &reference, started);
    Some(report)
}

pub(crate) fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed() - 1
}

/// Everything that can be said about one path but its content.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: Option<(i64, i64)>,
    size: Option<u64>,
    device: u64,
    links: Option<u64>,
    target: Option<PathBuf>,
    /// Names, with lengths and digests of the values.
    xattrs: BTreeMap<String, (usize, String)>,
    /// First path in order with the same inode.
    group: Option<PathBuf>,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let names = fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name()));
            pending.extend(names);
        }
        first
            .entry(metadata.ino())
            .and_modify(|there: &mut PathBuf| {
                if path < *there {
                    there.clone_from(&path);
                }
            })
            .or_insert_with(|| path.clone());
        let facts = Facts {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: Some((metadata.mtime(), metadata.mtime_nsec())),
            size: kind.is_file().then_some(metadata.len()),
            device: if kind.is_char_device() || kind.is_block_device() { metadata.rdev() } else { 0 },
            links: (!kind.is_dir()).then(|| metadata.nlink()),
            target: kind.is_symlink().then(|| fs::read_link(&full).unwrap()),
            xattrs: xattrs(&full),
            group: Some(PathBuf::from(metadata.ino().to_string())),
        };
        all.insert(path, facts);
    }
    for facts in all.values_mut() {
        let inode = facts.group.take().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        facts.group = Some(first[&inode].clone());
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<String, (usize, String)> {
    let mut names = vec![0_u8; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, names.as_mut_slice()) else { return BTreeMap::new() };
    names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            let key = std::ffi::CString::new(name).unwrap();
            let length = rustix::fs::lgetxattr(path, &key, value.as_mut_slice()).unwrap();
            let digest = hex::encode(sha256(&value[..length]));
            (String::from_utf8_lossy(name).into_owned(), (length, digest))
        })
        .collect()
}

/// Compares two trees in everything, but for mtimes of directories in the reference after `started` (Unix seconds).
pub(crate) fn assert_same(ours: &Path, reference: &Path, started: i64) {
    let (left, mut right) = (facts(ours), facts(reference));
    for (path, facts) in &left {
        let Some(other) = right.get_mut(path) else { panic!("only in ours: {path:?} {facts:?}") };
        // umoci leaves its own traces: it dates directories now which it implied, or from which it removed.
        if facts.target.is_none() && facts.size.is_none() && other.mtime > Some((started, 0)) {
            other.mtime = facts.mtime;
        }
        assert_eq!(facts, other, "{path:?}");
        if facts.size.is_some() {
            assert!(same_content(&ours.join(path), &reference.join(path)), "content of {path:?}");
        }
    }
    for (path, facts) in &right {
        assert!(
            left.contains_key(path),
            "only in the reference: {:?} {facts:?}",
            path.as_os_str().as_bytes()
        );
    }
}

fn same_content(left: &Path, right: &Path) -> bool {
    let (mut left, mut right) = (File::open(left).unwrap(), File::open(right).unwrap());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = left.read(&mut a).unwrap();
        if count == 0 {
            return right.read(&mut b).unwrap() == 0;
        }
        if right.read_exact(&mut b[..count]).is_err() || a[..count] != b[..count] {
            return false;
        }
    }
}

//! Layers to a disk image, beside its floor and beside the usual way, in one run.
//!
//! `cargo bench -p boxlite-ext4` makes three layers (31 000 entries, 1.7 GB uncompressed with a 1 GiB file of zeros,
//! as gzip), and a second image of 200 000 small files. Everything is measured from a warm page cache, the
//! build in a process of its own whose peak memory is read when it ends. Written data is not synced on any side.
//! umoci and mke2fs run if they are installed and this is root.

#![allow(clippy::disallowed_methods, reason = "scratch files of a benchmark")]

#[path = "../tests/suite/archive.rs"]
#[allow(dead_code, clippy::too_many_arguments, reason = "shared with the tests")]
mod archive;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use archive::Archive;
use boxlite_ext4::{BuildOptions, LayerSource, build};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, directory, out] = arguments.as_slice()
        && word == "build"
    {
        return build_once(Path::new(directory), Path::new(out));
    }
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-ext4");
    let (mixed, many) = (scratch.join("mixed"), scratch.join("many"));
    prepare(&mixed, mixed_layers);
    prepare(&many, many_layers);

    println!("three layers, gzip: {}", describe(&mixed));
    let gunzip = best(|| inflate(&mixed, false));
    let hashed = best(|| inflate(&mixed, true));
    let built = best(|| measured_build(&mixed, &scratch));
    row("gunzip (zlib-rs, one thread)", gunzip, "");
    row("gunzip + SHA-256 (one thread)", hashed, "the floor that counts");
    let memory = fs::read_to_string(scratch.join("memory")).unwrap_or_default();
    row("boxlite-ext4", built, &format!("{:.2}x the floor; {}", ratio(built, hashed), memory.trim()));
    match usual_way(&mixed, &scratch) {
        Some((unpack, make)) => {
            row("umoci unpack", unpack, "");
            row("mke2fs -d", make, "");
            println!("umoci + mke2fs take {:.1} times as long as boxlite-ext4", ratio(unpack + make, built));
        }
        None => println!("umoci unpack + mke2fs -d: not measured (needs root, umoci and mke2fs)"),
    }

    println!("200 000 files: {}", describe(&many));
    let hashed = best(|| inflate(&many, true));
    let built = best(|| measured_build(&many, &scratch));
    let memory = fs::read_to_string(scratch.join("memory")).unwrap_or_default();
    row("gunzip + SHA-256 (one thread)", hashed, "");
    row("boxlite-ext4", built, &format!("{:.2}x the floor; {}", ratio(built, hashed), memory.trim()));
}

fn row(what: &str, time: Duration, note: &str) {
    println!("  {what:<32} {:>8.2} s  {note}", time.as_secs_f64());
}

fn ratio(left: Duration, right: Duration) -> f64 {
    left.as_secs_f64() / right.as_secs_f64()
}

fn best(mut run: impl FnMut() -> Duration) -> Duration {
    (0..ROUNDS).map(|_| run()).min().unwrap_or_default()
}

fn layers(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    paths.sort();
    paths
}

fn describe(directory: &Path) -> String {
    let compressed: u64 = layers(directory).iter().map(|path| path.metadata().unwrap().len()).sum();
    let facts = fs::read_to_string(directory.join("facts")).unwrap();
    format!("{facts}, {} MB compressed", compressed / 1_000_000)
}

/// Decompresses all layers in one thread, and hashes what comes out or throws it away.
fn inflate(directory: &Path, hash: bool) -> Duration {
    let start = Instant::now();
    let mut buffer = vec![0; 128 * 1024];
    for path in layers(directory) {
        let mut hasher = Sha256::new();
        let file = std::io::BufReader::with_capacity(buffer.len(), File::open(path).unwrap());
        let mut decoder = flate2::bufread::MultiGzDecoder::new(file);
        loop {
            let count = decoder.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            if hash {
                hasher.update(&buffer[..count]);
            }
        }
        std::hint::black_box(hasher.finalize());
    }
    start.elapsed()
}

fn measured_build(directory: &Path, scratch: &Path) -> Duration {
    let out = scratch.join("image.ext4");
    let _ = fs::remove_file(&out);
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).arg("build").args([directory, &out]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (seconds, memory) = text.trim().split_once(' ').unwrap();
    let allocated = out.metadata().unwrap().blocks() * 512 / 1_000_000;
    fs::write(scratch.join("memory"), format!("{memory}, image of {allocated} MB allocated")).unwrap();
    fs::remove_file(&out).unwrap();
    Duration::from_secs_f64(seconds.parse().unwrap())
}

/// The child: builds, and prints seconds and peak memory.
fn build_once(directory: &Path, out: &Path) {
    let layers = layers(directory)
        .into_iter()
        .map(|path| {
            let digest = fs::read(path.with_extension("diff_id")).unwrap();
            LayerSource {
                reader: Box::new(File::open(&path).unwrap()),
                label: path.display().to_string(),
                diff_id: digest.try_into().unwrap(),
                blob_digest: None,
            }
        })
        .collect();
    let start = Instant::now();
    let file = File::create_new(out).unwrap();
    build(layers, &file, &BuildOptions::new([1; 32]), &mut |_| ControlFlow::Continue(())).unwrap();
    let elapsed = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("{elapsed} peak memory {}", peak.trim());
}

/// umoci into a directory, then mke2fs from it.
fn usual_way(directory: &Path, scratch: &Path) -> Option<(Duration, Duration)> {
    let (layout, bundle, image) =
        (scratch.join("layout"), scratch.join("bundle"), scratch.join("usual.ext4"));
    let clean = || {
        let _ = fs::remove_dir_all(&layout);
        let _ = fs::remove_dir_all(&bundle);
        let _ = fs::remove_file(&image);
    };
    clean();
    write_layout(directory, &layout);
    let start = Instant::now();
    let reference = format!("{}:test", layout.display());
    let unpacked = Command::new("umoci").args(["unpack", "--image", &reference]).arg(&bundle).output();
    let unpack = start.elapsed();
    let start = Instant::now();
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(bundle.join("rootfs"))
        .arg(&image)
        .arg("10G")
        .output();
    let make = start.elapsed();
    clean();
    (unpacked.ok()?.status.success() && made.ok()?.status.success()).then_some((unpack, make))
}

fn write_layout(directory: &Path, at: &Path) {
    let store = at.join("blobs/sha256");
    fs::create_dir_all(&store).unwrap();
    let put = |bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(store.join(&digest), bytes).unwrap();
        format!("\"digest\":\"sha256:{digest}\",\"size\":{}", bytes.len())
    };
    let (mut ids, mut entries) = (Vec::new(), Vec::new());
    for path in layers(directory) {
        ids.push(format!("\"sha256:{}\"", hex::encode(fs::read(path.with_extension("diff_id")).unwrap())));
        let blob = put(&fs::read(&path).unwrap());
        entries.push(format!("{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",{blob}}}"));
    }
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
        ids.join(",")
    );
    let config = put(config.as_bytes());
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",{config}}},\"layers\":[{}]}}",
        entries.join(",")
    );
    let manifest = put(manifest.as_bytes());
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",{manifest},\"annotations\":{{\"org.opencontainers.image.ref.name\":\"test\"}}}}]}}"
    );
    fs::write(at.join("index.json"), index).unwrap();
    fs::write(at.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// A layer on its way to its file: compressed, hashed and counted entry by entry.
struct Writer {
    encoder: flate2::write::GzEncoder<File>,
    hasher: Sha256,
    archive: Archive,
    path: PathBuf,
    entries: u64,
    bytes: u64,
}

impl Writer {
    fn new(directory: &Path, number: usize) -> Self {
        let path = directory.join(format!("{number}.gz"));
        let file = File::create(&path).unwrap();
        let encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        Self { encoder, hasher: Sha256::new(), archive: Archive::new(), path, entries: 0, bytes: 0 }
    }

    /// Ends an entry put into the archive.
    fn counted(&mut self) {
        self.entries += 1;
        self.pass();
    }

    fn pass(&mut self) {
        self.hasher.update(&self.archive.bytes);
        self.encoder.write_all(&self.archive.bytes).unwrap();
        self.bytes += self.archive.bytes.len() as u64;
        self.archive.bytes.clear();
    }

    fn end(mut self) -> (u64, u64) {
        self.archive.raw(&[0; 1024]);
        self.pass();
        self.encoder.finish().unwrap();
        fs::write(self.path.with_extension("diff_id"), self.hasher.finalize()).unwrap();
        (self.entries, self.bytes)
    }
}

fn prepare(directory: &Path, make: fn(&Path) -> (u64, u64)) {
    if directory.join("facts").exists() {
        return;
    }
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).unwrap();
    let (entries, bytes) = make(directory);
    fs::write(directory.join("facts"), format!("{entries} entries, {} MB", bytes / 1_000_000)).unwrap();
}

/// Content that compresses about as program files do: words from a small dictionary among noise.
struct Content(u64);

impl Content {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            let random = self.next();
            let word = if random.is_multiple_of(4) {
                random
            } else {
                (random >> 8 & 0x3ff).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            };
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

fn mixed_layers(directory: &Path) -> (u64, u64) {
    let mut content = Content(0x1234_5678_9abc_def1);
    let (mut entries, mut bytes) = (0, 0);
    for number in 0..3 {
        let mut layer = Writer::new(directory, number);
        let top = format!("layer-{number}");
        layer.archive.dir(&top);
        layer.counted();
        if number == 0 {
            layer.archive.dir("many");
            layer.counted();
            for file in 0..20_000 {
                let data = content.bytes(file % 2000);
                layer.archive.file(&format!("many/file-{file}"), &data);
                layer.counted();
            }
            layer.archive.entry_with(b'0', b"zeros", b"", &archive::meta(0o644), b"", &[], |header| {
                header.octal(124..136, 1 << 30);
            });
            layer.counted();
            for _ in 0..1024 {
                layer.archive.raw(&vec![0; 1 << 20]);
                layer.pass();
            }
        } else {
            for file in 0..200 {
                layer.archive.file(&format!("many/.wh.file-{}", file * 7 + number), b"");
                layer.counted();
                layer
                    .archive
                    .hardlink(&format!("{top}/link-{file}"), &format!("many/file-{}", 5000 + file * 13));
                layer.counted();
            }
        }
        for folder in 0..100 {
            layer.archive.dir(&format!("{top}/folder-{folder}"));
            layer.counted();
            for file in 0..33 {
                let length = (content.next() % 140_000) as usize;
                let data = content.bytes(length);
                layer.archive.file(&format!("{top}/folder-{folder}/file-{file}"), &data);
                layer.counted();
            }
        }
        let (layer_entries, layer_bytes) = layer.end();
        entries += layer_entries;
        bytes += layer_bytes;
    }
    (entries, bytes)
}

fn many_layers(directory: &Path) -> (u64, u64) {
    let mut content = Content(77);
    let mut layer = Writer::new(directory, 0);
    for folder in 0..2000 {
        layer.archive.dir(&format!("packages/folder-number-{folder}"));
        layer.counted();
        for file in 0..100 {
            let data = content.bytes(file * 11);
            layer.archive.file(&format!("packages/folder-number-{folder}/a-file-named-{file}.js"), &data);
            layer.counted();
        }
    }
    layer.end()
}

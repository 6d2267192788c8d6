//! A layer of 2 MB applied to a file system of 200 000 entries, beside decompressing and hashing that layer.
//!
//! `cargo bench -p boxlite-ext4 --bench delta` builds the lower file system once and keeps it. The delta is built in a
//! process of its own, whose peak memory is read when it ends; everything is measured from a warm page cache.

#![allow(clippy::disallowed_methods, reason = "scratch files of a benchmark")]

#[path = "../tests/suite/archive.rs"]
#[allow(dead_code, clippy::too_many_arguments, reason = "shared with the tests")]
mod archive;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use archive::{Archive, Blob, Compression, Meta, meta};
use boxlite_ext4::{BLOCK_SIZE, BlockSink, BuildOptions, DeltaOptions, LayerSource, build, build_delta};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 10;
const BELOW: [u8; 32] = [1; 32];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-delta");
    match arguments.first().map(String::as_str) {
        Some("delta") => return delta_once(&scratch, &upper()),
        Some("removal") => return delta_once(&scratch, &removal()),
        Some("floor") => return floor_once(),
        _ => {}
    }
    fs::create_dir_all(&scratch).unwrap();
    let below = scratch.join("below.ext4");
    if !below.exists() {
        let unfinished = scratch.join("unfinished");
        let _ = fs::remove_file(&unfinished);
        let file = File::create_new(&unfinished).unwrap();
        let layers = vec![lower().layer(0)];
        build(layers, &file, &BuildOptions::new(BELOW), &mut |_| ControlFlow::Continue(())).unwrap();
        fs::rename(&unfinished, &below).unwrap();
    }
    let upper = upper();
    println!("2 MB layer over 200 000 entries: {} kB compressed", upper.bytes.len() / 1000);
    let (floor, _) = best("floor");
    let (built, note) = best("delta");
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("  gunzip + SHA-256 (one thread)    {:>8.2} ms", milliseconds(floor));
    println!(
        "  boxlite-ext4 build_delta         {:>8.2} ms  {:.2}x the floor; {note}",
        milliseconds(built),
        milliseconds(built) / milliseconds(floor)
    );
    let (removed, note) = best("removal");
    println!("a whiteout of all 200 000 entries  {:>8.2} ms  {note}", milliseconds(removed));
}

/// Runs this program as a process of its own, several times: least seconds, and what it says.
fn best(what: &str) -> (Duration, String) {
    let program = std::env::current_exe().unwrap();
    let run = |_| {
        let output = Command::new(&program).arg(what).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (seconds, note) = text.trim().split_once(';').unwrap();
        (Duration::from_secs_f64(seconds.parse().unwrap()), note.trim().to_owned())
    };
    (0..ROUNDS).map(run).min().unwrap()
}

/// The child that decompresses and hashes.
fn floor_once() {
    let upper = upper();
    let start = Instant::now();
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 128 * 1024]);
    let mut decoder = flate2::read::MultiGzDecoder::new(upper.bytes.as_slice());
    loop {
        let count = decoder.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    std::hint::black_box(hasher.finalize());
    println!("{};", start.elapsed().as_secs_f64());
}

/// The blocks that are written and not zero, to be counted in clusters of several sizes; and how many are zero.
#[derive(Default)]
struct Counter(BTreeSet<u64>, u64);

impl BlockSink for Counter {
    fn write_blocks(&mut self, first: u64, blocks: &[u8]) -> io::Result<()> {
        for (number, block) in (first..).zip(blocks.chunks(BLOCK_SIZE)) {
            if block.iter().all(|&byte| byte == 0) {
                self.1 += 1;
            } else {
                self.0.insert(number);
            }
        }
        Ok(())
    }

    fn discard_blocks(&mut self, first: u64, count: u64) -> io::Result<()> {
        self.0.retain(|block| !(first..first + count).contains(block));
        Ok(())
    }
}

/// The child: builds, and prints seconds, peak memory and figures.
fn delta_once(scratch: &Path, upper: &Blob) {
    let below = File::open(scratch.join("below.ext4")).unwrap();
    // As the product does: the blob was verified when it was pulled.
    let layers = vec![LayerSource { blob_digest: None, ..upper.layer(0) }];
    let mut out = Counter::default();
    let start = Instant::now();
    let options = DeltaOptions::new(BELOW, [2; 32]);
    build_delta(&below, layers, &mut out, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let elapsed = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let clusters = [1, 2, 4, 8, 16].map(|blocks| {
        let count = out.0.iter().map(|block| block / blocks).collect::<BTreeSet<_>>().len() as u64;
        format!("{} of {} KiB", count, blocks * 4)
    });
    println!(
        "{elapsed}; peak memory {}; clusters: {}; {} blocks of zeros",
        peak.trim(),
        clusters.join(", "),
        out.1
    );
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8 & 0x3f
        })
        .collect()
}

/// 2000 packages of 100 files.
fn lower() -> Blob {
    let mut layer = Archive::new();
    for folder in 0..2000_u64 {
        layer.dir(&format!("packages/folder-number-{folder}"));
        for file in 0..100_u64 {
            let data = noise(file as usize * 11, folder * 100 + file);
            layer.file(&format!("packages/folder-number-{folder}/a-file-named-{file}.js"), &data);
        }
    }
    Blob::new(&layer.finish(), Compression::Gzip)
}

/// New files, replaced ones, whiteouts, a removed package, and one whose owner changes.
fn upper() -> Blob {
    let mut layer = Archive::new();
    for file in 0..60_u64 {
        layer.file(&format!("app/module-{}/file-{file}", file % 7), &noise(30_000, file + 9));
    }
    for file in 0..40_u64 {
        let folder = file * 37;
        layer.file(&format!("packages/folder-number-{folder}/a-file-named-{file}.js"), &noise(3000, file));
        layer.file(&format!("packages/folder-number-{folder}/.wh.a-file-named-99.js"), b"");
        let owned = Meta { uid: 1000, ..meta(0o600) };
        let name = format!("packages/folder-number-1500/a-file-named-{file}.js");
        layer.entry(b'0', name.as_bytes(), b"", &owned, &noise(file as usize * 11, 150_000 + file));
    }
    layer.file("packages/.wh.folder-number-77", b"");
    Blob::new(&layer.finish(), Compression::Gzip)
}

/// One whiteout.
fn removal() -> Blob {
    Blob::new(&Archive::new().file(".wh.packages", b"").finish(), Compression::Gzip)
}

//! What images that share layers take, and how long each takes from pulled blobs to a startable disk image, beside
//! decompressing and hashing its new layers.
//!
//! `scripts/bench share` makes the images and puts Podman's figures beside these. Usage: `share HOME LAYOUT TAG...`; the
//! images are built in that order, each several times; the shortest time counts, on both sides.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxlite_home::Home;
use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::disk_image::{digest, ensure};
use boxlite_storage::gc::Automatic;
use boxlite_storage::image::Images;
use boxlite_storage::store::Store;
use boxlite_types::{Digest, Image, PullOptions};
use sha2::{Digest as _, Sha256};

const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [home, layout, tags @ ..] = &arguments[..] else {
        println!("share: HOME, LAYOUT and TAGs are wanted; scripts/bench share gives them");
        return Ok(());
    };
    let home = Home::open(Path::new(home))?;
    let settings = Settings::load(&home, &SettingsVariables::default(), &SettingsOptions::default())?;
    let (store, size) = (Store::open(&home.database())?, settings.disk_size.value.0);
    let collector = Arc::new(Automatic::new(home.clone(), Arc::new(store.clone()), settings.clone()));
    let images = Images::new(home.clone(), store, settings, collector);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut seen = BTreeSet::new();
    let (mut floors, mut builds) = (Vec::new(), Vec::new());
    for tag in tags {
        let reference = format!("oci:{layout}:{tag}").parse()?;
        let image = runtime.block_on(images.pull(&reference, &PullOptions::default(), Arc::new(())))?;
        let new: Vec<Digest> =
            image.layers.iter().map(|layer| layer.digest).filter(|layer| seen.insert(*layer)).collect();
        // What the first image builds below its topmost file is there in a second round.
        let rounds = if builds.is_empty() { 1 } else { ROUNDS };
        let floor = (0..rounds).map(|_| floor(&home, &new)).collect::<Outcome<Vec<_>>>()?;
        let build = (0..rounds).map(|_| build(&home, &images, &image, size)).collect::<Outcome<Vec<_>>>()?;
        floors.extend(floor.into_iter().min());
        builds.extend(build.into_iter().min());
    }
    let ratios: Vec<f64> =
        floors.iter().zip(&builds).map(|(floor, build)| build.as_secs_f64() / floor.as_secs_f64()).collect();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("first image                       {:>10.1?}, {:.2}x its floor", builds[0], ratios[0]);
    if let [_, later @ ..] = &builds[..] {
        println!("images 2 to n, median             {:>10.1?}", median(later.to_vec()));
        println!("gunzip + SHA-256 of their layers  {:>10.1?}", median(floors[1..].to_vec()));
        println!("ratio (goal: at most 1.3)         {:>10.2}", middle(ratios[1..].to_vec()));
    }
    println!("peak memory of all of this        {:>10}", peak.trim());
    Ok(())
}

/// The time to decompress and to hash these layers.
fn floor(home: &Home, layers: &[Digest]) -> Outcome<Duration> {
    let start = Instant::now();
    let mut buffer = vec![0; 128 << 10];
    for layer in layers {
        let mut reader = flate2::read::MultiGzDecoder::new(File::open(home.blobs().join(layer.hex()))?);
        let mut hasher = Sha256::new();
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        std::hint::black_box(hasher.finalize());
    }
    Ok(start.elapsed())
}

/// The time to build what is missing of the disk image, its topmost file in any case.
#[allow(clippy::disallowed_methods, reason = "a home of the benchmark's own")]
fn build(home: &Home, images: &Images, image: &Image, size: u64) -> Outcome<Duration> {
    for path in [home.delta(&digest(image, size)), home.disk_image(&digest(image, size))] {
        if path.exists() {
            std::fs::remove_file(path)?;
        }
    }
    let start = Instant::now();
    drop(ensure(images, image, size, &())?);
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

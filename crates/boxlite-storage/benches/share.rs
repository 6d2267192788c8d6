//! What images that share layers take, and how long each takes from pulled blobs to a startable disk image, beside
//! decompressing and hashing its new layers.
//!
//! `scripts/bench share` makes the images and puts Podman's figures beside these. Usage: `share HOME LAYOUT TAG...`; the
//! images are built in that order, each several times (`BOXLITE_BENCH_BUILDS`), in turns with the other sides; the
//! shortest time counts, on all sides. Prints a name and a figure per line.
//!
//! The other sides are decompressing and hashing the new layers, and the same with the least that makes them durable:
//! writing the same bytes to a file that is already there, and one fsync.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
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
    let rounds = std::env::var("BOXLITE_BENCH_BUILDS").map_or(Ok(9), |rounds| rounds.parse::<usize>())?;
    let (mut floors, mut durables, mut builds, mut pulls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut efforts = Vec::new();
    let mut written = tempfile::tempfile_in(home.tmp())?;
    for tag in tags {
        let reference = format!("oci:{layout}:{tag}").parse()?;
        let start = Instant::now();
        let image = runtime.block_on(images.pull(&reference, &PullOptions::default(), Arc::new(())))?;
        drop(ensure(&images, &image, size, &())?);
        pulls.push(start.elapsed());
        let new: Vec<Digest> =
            image.layers.iter().map(|layer| layer.digest).filter(|layer| seen.insert(*layer)).collect();
        // Of the first image, the layers below its topmost file are built only once.
        let first = builds.is_empty();
        let (mut floor_times, mut durable_times, mut build_times) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if first { 1 } else { rounds } {
            written.set_len(0)?;
            written.rewind()?;
            written.sync_all()?;
            durable_times.push(floor(&home, &new, Some(&mut written))?);
            let before = processor_time();
            floor_times.push(floor(&home, &new, None)?);
            let between = processor_time();
            build_times.push(if first { pulls[0] } else { build(&home, &images, &image, size)? });
            let effort = (processor_time() - between) / (between - before);
            efforts.extend((!first).then_some(effort));
        }
        floors.extend(floor_times.into_iter().min());
        durables.extend(durable_times.into_iter().min());
        builds.extend(build_times.into_iter().min());
    }
    let [_, later @ ..] = &builds[..] else { return Err("no TAGs".into()) };
    let ratios = |one: &[Duration], other: &[Duration]| {
        middle(one.iter().zip(other).skip(1).map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()))
    };
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("first_pull_and_build_ms {:.2}", milliseconds(pulls[0]));
    if !later.is_empty() {
        println!("pull_and_build_ms {:.2}", middle(pulls[1..].iter().copied().map(milliseconds)));
        println!("build_ms {:.2}", middle(later.iter().copied().map(milliseconds)));
        println!("floor_ms {:.2}", middle(floors[1..].iter().copied().map(milliseconds)));
        println!("build_to_floor {:.2}", ratios(&builds, &floors));
        println!("durable_floor_ms {:.2}", middle(durables[1..].iter().copied().map(milliseconds)));
        println!("durable_floor_to_floor {:.2}", ratios(&durables, &floors));
        println!("build_to_durable_floor {:.2}", ratios(&builds, &durables));
        println!("effort_to_floor {:.2}", middle(efforts.into_iter()));
    }
    println!("peak_kib {}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// The time to decompress and to hash these layers, and to write what they expand to into a file and fsync that.
fn floor(home: &Home, layers: &[Digest], mut written: Option<&mut File>) -> Outcome<Duration> {
    let start = Instant::now();
    let mut buffer = vec![0; 128 << 10];
    for layer in layers {
        let mut reader = flate2::read::MultiGzDecoder::new(File::open(home.blobs().join(layer.hex()))?);
        let mut hasher = Sha256::new();
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    written.as_mut().map_or(Ok(()), |file| file.write_all(&buffer[..count]))?;
                }
            }
        }
        std::hint::black_box(hasher.finalize());
    }
    written.map_or(Ok(()), |file| file.sync_all())?;
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

/// Seconds that all threads of this process have had of the processors.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time`, which outlives it.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0, "the clock of a process");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

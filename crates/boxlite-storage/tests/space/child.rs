//! The tasks of a child process: see [`crate::place::spawn`].

use std::path::Path;
use std::time::{Duration, Instant};

use boxlite_types::GcOptions;

use crate::{place, race};

#[test]
fn work() {
    let Ok(job) = std::env::var("BOXLITE_SPACE_CHILD") else { return };
    let home = place::open(Path::new(&std::env::var("BOXLITE_SPACE_HOME").unwrap()));
    let words: Vec<&str> = job.split(' ').collect();
    match words[..] {
        ["start", id, index] => place::start(&home, id, index.parse().unwrap()),
        ["gc"] => {
            let report = place::collect(&home, &GcOptions::default());
            assert!(!report.failed(), "{report:?}");
        }
        ["claim", bytes] => {
            let claims = boxlite_home::admission::Claims::open(&home).unwrap();
            let _claim = claims.take(bytes.parse().unwrap()).unwrap();
            loop {
                std::thread::park();
            }
        }
        ["remove", id] => place::remove(&home, id),
        ["hammer", seed, seconds] => {
            let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            assert!(race::keep_starting(&home, seed.parse().unwrap(), end) > 0);
        }
        ["sweep", seconds] => {
            let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            race::keep_collecting(&home, end);
        }
        _ => panic!("{job}"),
    }
}

//! Random stacks of layers, applied both ways: as one whole build, and as a chain of deltas cut at random places.

use std::fs::File;

use boxlite_ext4::{BuildOptions, read_identity};
use proptest::prelude::*;

use crate::archive::{Archive, Blob, Compression, Meta};
use crate::chain::{Chain, identity};
use crate::model::{Model, Op, Random};
use crate::oracle::{Mount, able, assert_same, build_at, check};

const SIZE: u64 = 64 << 20;

/// Adds an entry that meets others as often as can be.
fn add(layer: &mut Archive, random: &mut Random, model: &mut Model, wide: bool) {
    let name = |random: &mut Random| {
        let depth = 1 + random.below(3);
        let parts: Vec<_> = (0..depth).map(|_| ["a", "b", "c", "d"][random.below(4)]).collect();
        parts.join("/")
    };
    // Names of one directory that needs an index, of a length that fills leaves soon.
    let path = if wide && random.below(3) > 0 {
        format!("wide/{:x>1$}", random.below(400), 40 + 150 * random.below(2))
    } else {
        name(random)
    };
    let xattrs = match random.below(6) {
        0 => vec![(b"trusted.small".to_vec(), vec![random.below(256) as u8; 5])],
        1 => vec![(b"trusted.large".to_vec(), vec![random.below(3) as u8; 1500])],
        _ => Vec::new(),
    };
    let meta = Meta {
        mode: [0o644, 0o755, 0o4711, 0o600][random.below(4)],
        uid: [0, 7, 70_000][random.below(3)],
        mtime: format!("{}.{:09}", 1_000_000_000 + random.below(3), random.below(1_000_000_000)),
        xattrs,
        ..Meta::default()
    };
    let in_wide = path.starts_with("wide/");
    let text = path.clone();
    let path = path.as_bytes();
    let (parent, last) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => path.split_at(at + 1),
        None => (&b""[..], path),
    };
    let (choice, target) = (random.below(16), name(random));
    let link = match random.below(4) {
        0 => "t/".repeat(50),
        kind => ["", "/", "../"][kind - 1].to_owned() + &target,
    };
    let (directory, file) =
        (String::from_utf8(parent.to_vec()).unwrap(), String::from_utf8(last.to_vec()).unwrap());
    let op = match choice {
        0..=6 | 12 => Op::File(text, 0),
        7 | 8 => Op::Directory(text, 0),
        9 => Op::Symlink(text, link.clone()),
        10 | 11 => Op::Hardlink(text, target.clone()),
        13 | 14 => Op::Whiteout(if directory.is_empty() { ".".to_owned() } else { directory }, file),
        _ => Op::Opaque(text),
    };
    // What the model refuses would end the build. Names in `wide` lead nowhere, so it need not know them.
    if !in_wide || matches!(op, Op::Hardlink(..)) {
        let mut trial = model.clone();
        if trial.apply(&op).is_err() {
            return;
        }
        *model = trial;
    }
    match choice {
        0..=6 => {
            layer.entry(b'0', path, b"", &meta, &content(random));
        }
        7 | 8 => {
            layer.entry(b'5', path, b"", &meta, b"");
        }
        9 => {
            layer.entry(b'2', path, link.as_bytes(), &meta, b"");
        }
        10 | 11 => {
            layer.entry(b'1', path, target.as_bytes(), &meta, b"");
        }
        12 => {
            layer.entry(b'6', path, b"", &meta, b"");
        }
        13 | 14 => {
            layer.entry(b'0', &[parent, b".wh.", last].concat(), b"", &meta, b"");
        }
        _ => {
            layer.entry(b'0', &[path, b"/.wh..wh..opq"].concat(), b"", &meta, b"");
        }
    }
}

/// Contents that share blocks with each other, have holes, or are short.
fn content(random: &mut Random) -> Vec<u8> {
    let blocks = [0, 1, 3, 20][random.below(4)];
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let fill = [0, 0, 1, 2, 3][random.below(5)];
        bytes.extend_from_slice(&[fill; 4096]);
    }
    if random.below(8) == 0 {
        bytes.extend(std::iter::repeat_n(0, 20 * 4096));
    }
    bytes.extend(std::iter::repeat_n(random.below(4) as u8, random.below(5000)));
    bytes
}

/// A stack of layers; most entries that a build would refuse are left out.
fn stack(seed: u64, layers: usize, length: usize, wide: bool) -> Vec<Archive> {
    let (mut random, mut model) = (Random(seed), Model::default());
    (0..layers)
        .map(|_| {
            model.next_layer();
            let mut layer = Archive::new();
            for _ in 0..length {
                add(&mut layer, &mut random, &mut model, wide);
            }
            layer
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Mutations tried: whiteouts that leave attribute blocks behind; leaves that keep removed names; links not
    /// counted for names that are not in the tree. Each fails.
    #[test]
    fn a_chain_of_deltas_is_what_a_whole_build_makes(
        seed in any::<u64>(),
        layers in 2_usize..6,
        length in 1_usize..50,
        cuts in any::<u8>(),
        wide in any::<bool>(),
    ) {
        if !able("random deltas") {
            return Ok(());
        }
        let length = if wide { length * 12 } else { length };
        let blobs: Vec<_> = stack(seed, layers, length, wide)
            .iter()
            .map(|layer| Blob::new(&layer.finish(), Compression::None))
            .collect();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let options = |segments| BuildOptions { virtual_size: SIZE, ..BuildOptions::new(identity(segments)) };
        let whole = build_at(&at("whole"), &blobs, &options(1));
        let ends: Vec<_> =
            (1..layers).filter(|layer| cuts & 1 << layer != 0).chain(std::iter::once(layers)).collect();
        let mut start = 0;
        let segments: Vec<_> = ends
            .iter()
            .map(|&end| {
                let segment = &blobs[start..end];
                start = end;
                segment
            })
            .collect();
        let chain = Chain::build(&at("base"), &segments, SIZE);
        let (whole, (chain, _)) = match (whole, chain) {
            (Ok(whole), Ok(chain)) => (whole, chain),
            (Err(whole), Err(chain)) => {
                prop_assert_eq!(whole.kind(), chain.kind(), "{} {}", whole, chain);
                return Ok(());
            }
            (whole, chain) => {
                return Err(TestCaseError::fail(format!("{whole:?} {:?}", chain.map(|(_, reports)| reports))));
            }
        };
        chain.flatten(&at("base"), &at("flat"));
        check(&at("flat"));
        let identity = read_identity(&File::open(at("flat")).unwrap()).unwrap();
        prop_assert_eq!(identity.uuid, whole.uuid);
        let delta = Mount::new(&at("flat"), &at("delta-mount"), "ro,loop");
        let reference = Mount::new(&at("whole"), &at("whole-mount"), "ro,loop");
        assert_same(&delta.at, &reference.at, i64::MAX - 1);
    }
}

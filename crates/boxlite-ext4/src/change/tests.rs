//! Names with equal hashes, which only the hash function of the crate can find.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::below::{DirectoryFile, FilesystemBelow};
use crate::format::Identifiers;
use crate::format::dirhash::hash;
use crate::{BuildOptions, DeltaOptions, LayerSource, build, build_delta};

#[path = "../../tests/suite/archive.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::too_many_arguments,
    reason = "shared with the tests of the suite"
)]
mod archive;

use archive::Archive;

fn source(archive: &Archive) -> LayerSource {
    let tar = archive.finish();
    let diff_id = Sha256::digest(&tar).into();
    LayerSource { reader: Box::new(Cursor::new(tar)), label: "layer".to_owned(), diff_id, blob_digest: None }
}

/// Groups of names with the same hash under the seed of an identity.
fn collisions(identity: &[u8; 32], wanted: usize) -> Vec<(String, String)> {
    let seed = Identifiers::derive(identity).hash_words();
    let mut seen = HashMap::new();
    let names = (0..).map(|number| format!("collides-{number:->120}"));
    names
        .filter_map(|name| seen.insert(hash(name.as_bytes(), &seed), name.clone()).map(|other| (other, name)))
        .take(wanted)
        .collect()
}

/// Names with equal hashes can lie in two leaves, where the index says so; both are searched.
///
/// Long names put few into a leaf, so that many of the pairs are torn apart. Mutation tried: `candidates` giving the
/// first leaf alone; fails.
#[test]
fn names_with_equal_hashes_are_found_in_either_leaf() {
    let identity = [3; 32];
    let pairs = collisions(&identity, 400);
    let [mut base, mut upper] = [(); 2].map(|()| Archive::new());
    let mut expected = BTreeSet::new();
    for (left, right) in &pairs {
        base.file(&format!("d/{left}"), b"left").file(&format!("d/{right}"), b"right");
    }
    for (number, (left, right)) in pairs.iter().enumerate() {
        match number % 4 {
            0 => upper.file(&format!("d/.wh.{left}"), b"").file(&format!("d/{right}"), b"new"),
            1 => upper.file(&format!("d/{left}"), b"new").file(&format!("d/.wh.{right}"), b""),
            2 => upper.file(&format!("d/.wh.{left}"), b"").file(&format!("d/.wh.{right}"), b""),
            _ => &mut upper,
        };
        expected.extend((number % 4 == 0 || number % 4 == 3).then(|| right.clone()));
        expected.extend((number % 4 == 1 || number % 4 == 3).then(|| left.clone()));
    }
    let scratch = tempfile::tempdir().unwrap();
    let (below, above) = (scratch.path().join("below"), scratch.path().join("above"));
    let file = File::create_new(&below).unwrap();
    let options = BuildOptions { virtual_size: 32 << 20, ..BuildOptions::new(identity) };
    build(vec![source(&base)], &file, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    std::fs::copy(&below, &above).unwrap();
    let below = File::open(&below).unwrap();

    let opened = FilesystemBelow::open(&below, &identity).unwrap();
    let (number, _) = directory(&opened, 2).find(b"d").unwrap().unwrap();
    let index = directory(&opened, number).index.unwrap();
    let torn = index.leaves.iter().filter(|leaf| leaf.hash & 1 != 0).count();
    assert!(torn > 3, "{torn} pairs lie in two leaves");

    let out = File::options().read(true).write(true).open(&above).unwrap();
    let options = DeltaOptions::new(identity, [4; 32]);
    build_delta(&below, vec![source(&upper)], &mut &out, &options, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let opened = FilesystemBelow::open(&out, &[4; 32]).unwrap();
    let changed = directory(&opened, number);
    let mut found = BTreeSet::new();
    for leaf in changed.leaves() {
        changed
            .visit(leaf, &mut |entry| {
                found.insert(String::from_utf8(entry.name.to_vec()).unwrap());
            })
            .unwrap();
    }
    assert_eq!(found, expected);
    for name in &expected {
        assert!(changed.find(name.as_bytes()).unwrap().is_some(), "{name}");
    }
    if let Ok(output) = Command::new("e2fsck").arg("-fn").arg(&above).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn directory<'b>(below: &'b FilesystemBelow<'b>, number: u32) -> DirectoryFile<'b> {
    DirectoryFile::open(below, number, &below.inode(number).unwrap()).unwrap()
}

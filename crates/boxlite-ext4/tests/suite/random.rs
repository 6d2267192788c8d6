//! Random stacks of layers against umoci: the same twelve in every run.

use crate::archive::{Archive, Blob, Compression, meta};
use crate::model::{Model, Op, Random};
use crate::oracle::{options, verify};

#[test]
fn random_stacks_come_out_as_umoci_unpacks_them() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut model = Model::strict();
        let mut blobs = Vec::new();
        for number in 0..4 {
            model.next_layer();
            let mut layer = Archive::new();
            for _ in 0..60 {
                let op = random.op();
                let mut trial = model.clone();
                if trial.apply(&op).is_ok() {
                    model = trial;
                    add(&mut layer, &op);
                }
            }
            let compression = [Compression::None, Compression::Gzip, Compression::Zstd][number % 3];
            blobs.push(Blob::new(&layer.finish(), compression));
        }
        verify(&format!("random stack {seed}"), &blobs, &options());
    }
}

fn add(layer: &mut Archive, op: &Op) {
    let name = op.name();
    match op {
        Op::File(_, content) => layer.file(&name, &vec![*content; usize::from(*content) * 100]),
        Op::Directory(_, mode) => {
            layer.entry(b'5', name.as_bytes(), b"", &meta(u32::from(*mode) | 0o700), b"")
        }
        Op::Symlink(_, target) => layer.symlink(&name, target),
        Op::Hardlink(_, target) => layer.hardlink(&name, target),
        Op::Whiteout(..) | Op::Opaque(_) => layer.file(&name, b""),
    };
}

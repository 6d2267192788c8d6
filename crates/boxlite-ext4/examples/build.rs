//! Builds an image from layer files: `build OUT VIRTUAL_SIZE LAYER...`, lowest first. The layers' digests are
//! computed first, so this verifies nothing: it is for trying things out.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;

use boxlite_ext4::{BuildOptions, LayerSource, build};
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, virtual_size, layers @ ..] = arguments.as_slice() else {
        return Err("usage: build OUT VIRTUAL_SIZE LAYER...".into());
    };
    let layers = layers.iter().map(|path| layer(path)).collect::<Result<_, _>>()?;
    #[allow(clippy::disallowed_methods, reason = "a scratch file named by the user")]
    let file = File::create_new(out)?;
    let options = BuildOptions { virtual_size: virtual_size.parse()?, ..BuildOptions::new([0; 32]) };
    let report = build(layers, &file, &options, &mut |_| ControlFlow::Continue(()))?;
    println!("{report:#?}");
    Ok(())
}

fn layer(path: &str) -> Result<LayerSource, Box<dyn std::error::Error>> {
    let mut magic = [0; 2];
    File::open(path)?.read_exact(&mut magic)?;
    let mut plain: Box<dyn Read> = match magic {
        [0x1f, 0x8b] => Box::new(flate2::read::MultiGzDecoder::new(File::open(path)?)),
        [0x28, 0xb5] => Box::new(zstd::stream::read::Decoder::new(File::open(path)?)?),
        _ => Box::new(File::open(path)?),
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let diff_id = hasher.finalize().into();
    Ok(LayerSource {
        reader: Box::new(File::open(path)?),
        label: path.to_owned(),
        diff_id,
        blob_digest: None,
    })
}

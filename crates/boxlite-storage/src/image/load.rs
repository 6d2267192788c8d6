//! Images out of archives: what `docker save`, `boxlite save` and OCI's tools wrote.
//!
//! An archive that comes as a stream, or compressed, is written to `images/tmp` first, because an image's parts lie in no
//! order there. All of it is bounded by the space that must stay free, and nothing in it is believed before its digest
//! has been verified.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::blocking;
use boxlite_home::durable::Staged;
use boxlite_types::{Doing, Error, ErrorCause, Image, Platform, ProgressSink, Result};

use super::pull::NewNames;
use super::source::{ImageSource, LocalSource};
use super::{Images, WriteSpace};
use crate::reference::RegistryReference;
use crate::store::NameOrigin;

/// How much of a stream is written at a time.
const CHUNK: usize = 256 << 10;

/// An archive of images.
pub enum ImageArchive {
    /// A file, or the directory of an OCI layout.
    File(PathBuf),
    /// Its bytes as they come, which may be compressed.
    Stream(Box<dyn Read + Send>),
}

impl std::fmt::Debug for ImageArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Images {
    /// Takes in all images of an archive, under the names that it gives them, and returns them with those names alone.
    ///
    /// # Errors
    /// `Corrupt` for what is not an archive of images, or contradicts its digests; `InvalidInput` for names with digests;
    /// `Unsupported` for an image of another platform; `ResourceExhausted` where the disk is too full. Images that came before stay.
    pub async fn load(&self, archive: ImageArchive, progress: Arc<dyn ProgressSink>) -> Result<Vec<Image>> {
        let this = self.clone();
        let (spooled, sources) = blocking(move || {
            let (spooled, path) = match archive {
                ImageArchive::File(path) => match compressed(&path)? {
                    Some(file) => this.spool(file)?,
                    None => (None, path),
                },
                ImageArchive::Stream(stream) => this.spool(stream)?,
            };
            let sources = LocalSource::all(&path)?;
            for (source, names) in &sources {
                names.iter().try_for_each(|name| refuse_digest(name, source.name()))?;
            }
            Ok((spooled, sources))
        })
        .await?;
        let mut loaded = Vec::new();
        for (source, names) in sources {
            let name = source.name().to_owned();
            let source = ImageSource::Local(Arc::new(source));
            let load = async {
                let found = self.identify(&source, &name, &Platform::host()).await?;
                let references: Vec<String> = names.iter().map(ToString::to_string).collect();
                let names = NewNames {
                    references: references.clone(),
                    origin: NameOrigin::Here,
                    of_registry: false,
                    renew: true,
                };
                let image = self.store_found(&source, found, names, &progress).await?;
                Ok::<_, Error>(Image { references, ..image })
            };
            loaded.push(load.await.map_err(|error| error.while_doing(format!("loading {name}")))?);
        }
        drop(spooled);
        Ok(loaded)
    }

    /// Writes a stream, uncompressed, to a file that goes with the returned handle.
    fn spool(&self, stream: impl Read) -> Result<(Option<Staged>, PathBuf)> {
        let staged = self.spool_plain(Uncompressed::of(stream)?)?;
        let path = staged.path().to_owned();
        Ok((Some(staged), path))
    }

    /// Writes a stream to a file that goes with the returned handle.
    pub(super) fn spool_plain(&self, stream: impl Read) -> Result<Staged> {
        let room = self.room(Vec::new())?;
        room.reserve(0)?;
        let staged = Staged::create(&self.home().tmp(), "load")?;
        copy(stream, &staged, &room)?;
        Ok(staged)
    }
}

/// Refuses a name with a digest: whoever asks for that one trusts the digest, and the archive's word is no proof of it.
fn refuse_digest(name: &RegistryReference, source: &str) -> Result<()> {
    if name.digest().is_none() {
        return Ok(());
    }
    let message = format!(
        "{source} gives its image the name '{}', which has a digest, and a name that is given to an image has none; \
         write the archive anew with a tag",
        name.familiar()
    );
    Err(Error::invalid(message).about(ErrorCause::LocalImage))
}

/// Opens the file if it is compressed.
fn compressed(path: &Path) -> Result<Option<File>> {
    if path.is_dir() {
        return Ok(None);
    }
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found(format!("there is no archive at {}", path.display())).at(path));
        }
        Err(error) => return Err(Error::io("opening", path, error)),
    };
    if !file.metadata().doing("examining", path)?.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())).at(path));
    }
    let mut magic = [0; 4];
    let got = file.read_at(&mut magic, 0).doing("reading", path)?;
    Ok(Compression::of(&magic[..got]).map(|_| file))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn of(magic: &[u8]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A stream without its compression.
pub(super) struct Uncompressed<'a>(Box<dyn Read + 'a>);

impl<'a> Uncompressed<'a> {
    /// Looks at the stream's first bytes.
    pub(super) fn of(mut stream: impl Read + 'a) -> Result<Self> {
        let mut magic = Vec::new();
        stream.by_ref().take(4).read_to_end(&mut magic).map_err(unreadable)?;
        let compression = Compression::of(&magic);
        let whole = std::io::Cursor::new(magic).chain(stream);
        Ok(Self(match compression {
            None => Box::new(whole),
            Some(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Some(Compression::Zstd) => {
                let mut decoder = zstd::Decoder::new(whole).map_err(unreadable)?;
                decoder.window_log_max(27).map_err(unreadable)?;
                Box::new(decoder)
            }
        }))
    }
}

impl Read for Uncompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

fn copy(mut from: impl Read, staged: &Staged, room: &WriteSpace) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        room.about_to_write(got as u64)?;
        staged.file().write_all_at(&buffer[..got], offset).doing("writing", staged.path())?;
        offset += got as u64;
    }
}

/// A stream that breaks off, or a damaged one.
pub(super) fn unreadable(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) if matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof) => {
            Error::corrupt("the archive is damaged, it cannot be uncompressed")
                .about(ErrorCause::LocalImage)
                .because(error)
        }
        Err(error) => Error::io("reading", "the archive", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_gives_no_name_that_holds_a_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for name in [format!("alpine@{digest}"), format!("registry.example/web:1@{digest}")] {
            let name = RegistryReference::parse(&name).unwrap();
            let error = refuse_digest(&name, "x.tar").unwrap_err();
            assert_eq!(error.kind(), boxlite_types::ErrorKind::InvalidInput, "{error}");
        }
        refuse_digest(&RegistryReference::parse("alpine:3").unwrap(), "x.tar").unwrap();
    }
}

//! The changes of a box to its image, images of it, and its files as an archive.
//!
//! # Protocol
//! The guest lists its disk, the host answers with the files that it wants, and the guest sends those
//! (`boxlite_archive::tree`). Blocking code works on the list; what it reads and answers is pumped to the guest beside it.

use std::io::Read;

use boxlite_home::blocking;
use boxlite_storage::image::{BoxTree, CommitPlan, whole_selection, write_archive};
use boxlite_types::{BoxRecord, CommitOptions, Digest, Error, ErrorKind, FileChange, Image, Result};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::files::closing_with;
use super::maintenance::FileSession;
use super::{Local, streams};
use crate::litebox;
use crate::runtime::operations::{BoxImages, TarStream};

impl BoxImages for Local {
    async fn diff(&self, id: &str) -> Result<Vec<FileChange>> {
        let (session, disk) = self.open_tree(self.find_readable(id).await?).await?;
        let images = self.images.clone();
        let Conversation { mut reader, answer, pumps } = Conversation::begin(&session).await?;
        let compared = blocking(move || {
            let comparison = images.compare(BoxTree::read(&mut reader)?, &disk.digest)?;
            answer.give(BoxTree::no_selection())?;
            read_to_end(&mut reader)?;
            Ok(comparison.described())
        })
        .await;
        drop(pumps);
        session.close().await.and(compared)
    }

    async fn commit(&self, id: &str, options: CommitOptions) -> Result<Image> {
        let plan = CommitPlan::new(&options, "boxlite commit")?;
        let record = self.find_readable(id).await?;
        let base = self.images.commit_base(record.image.parse()?).await?;
        let (session, disk) = self.open_tree(record).await?;
        let images = self.images.clone();
        let Conversation { mut reader, answer, pumps } = Conversation::begin(&session).await?;
        let committed = blocking(move || {
            let comparison = images.compare(BoxTree::read(&mut reader)?, &disk.digest)?;
            answer.give(comparison.selection())?;
            images.commit(&comparison, &base, &plan, disk.size, &mut reader)
        })
        .await;
        drop(pumps);
        // The image is whole, however the guest ends.
        let closed = session.close().await;
        let image = committed?;
        closed.map(|()| image)
    }

    async fn export(&self, id: &str) -> Result<TarStream> {
        let (session, disk) = self.open_tree(self.find_readable(id).await?).await?;
        let Conversation { mut reader, answer, pumps } = Conversation::begin(&session).await?;
        let tar = streams::written(move |mut out| {
            let _pumps = pumps;
            let tree = BoxTree::read(&mut reader)?;
            answer.give(whole_selection(&tree))?;
            write_archive(&tree, &mut out, disk.size, &mut reader)?;
            read_to_end(&mut reader)
        })?;
        Ok(Box::new(closing_with(session, tar)))
    }
}

/// The disk of a box.
struct BoxDisk {
    /// Names the disk image that it stands on.
    digest: Digest,
    /// Its size in bytes: files of it have no more data than that, whatever their lengths with holes.
    size: u64,
}

impl Local {
    /// The record of a box whose guest is not paused, and could list its files.
    async fn find_readable(&self, id: &str) -> Result<BoxRecord> {
        let id = id.to_owned();
        self.in_context(move |context| {
            let record = context.store.find_box(&id)?;
            litebox::describe(&context.home, &record)?.refuse_while_paused()?;
            Ok(record)
        })
        .await
    }

    async fn open_tree(&self, record: BoxRecord) -> Result<(FileSession, BoxDisk)> {
        let disk = BoxDisk {
            digest: Digest::from_hex(record.disk_digest.trim_start_matches("sha256:"))?,
            size: record.options.disk_size.unwrap_or(record.disk_image_size),
        };
        Ok((self.open_files(&record.id, true).await?, disk))
    }
}

/// One exchange with a guest, for blocking code.
struct Conversation<R> {
    /// The guest's bytes.
    reader: R,
    /// Answers it.
    answer: GuestAnswer,
    /// The tasks that move the bytes; dropping them ends the exchange.
    pumps: [AbortOnDropHandle<()>; 2],
}

struct GuestAnswer(oneshot::Sender<Vec<u8>>);

impl GuestAnswer {
    fn give(self, bytes: Vec<u8>) -> Result<()> {
        self.0
            .send(bytes)
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the exchange with the box was given up"))
    }
}

impl Conversation<()> {
    async fn begin(session: &FileSession) -> Result<Conversation<impl Read + Send + 'static + use<>>> {
        let (output, mut input) = session.client.tree().await?;
        let (pump, reader) = streams::read(Box::new(output))?;
        let (answer, given) = oneshot::channel::<Vec<u8>>();
        let answering = async move {
            if let Ok(bytes) = given.await {
                // A guest that is gone says so in what it sends.
                let _ = input.write_all(&bytes).await;
                let _ = input.shutdown().await;
            }
        };
        let pumps =
            [AbortOnDropHandle::new(tokio::spawn(pump)), AbortOnDropHandle::new(tokio::spawn(answering))];
        Ok(Conversation { reader, answer: GuestAnswer(answer), pumps })
    }
}

/// Reads to the end of the guest's stream: an exchange that failed ends in an error.
fn read_to_end(reader: &mut impl Read) -> Result<()> {
    match std::io::copy(reader, &mut std::io::sink()) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::corrupt("the box's guest sent more than it was asked for")),
        Err(error) => match error.downcast::<Error>() {
            Ok(own) => Err(own),
            Err(error) => Err(Error::new(ErrorKind::Io, "the box's files did not arrive").because(error)),
        },
    }
}

//! Whole boxes as single files.

use std::path::PathBuf;
use std::sync::Arc;

use boxlite_home::blocking;
use boxlite_storage::box_file;
use boxlite_types::{BoxExportOptions, BoxImportOptions, EventAction, ImportedBox, Result};

use super::{Local, streams};
use crate::litebox::box_file::{DiskTop, head, import, open_disk};
use crate::litebox::{self, BoxGuard};
use crate::runtime::operations::{BoxExports, BoxImports, TarStream};

impl BoxImports for Local {
    async fn import_box(&self, archive: TarStream, options: BoxImportOptions) -> Result<ImportedBox> {
        let (pump, reader) = streams::read(archive)?;
        let (context, images) = (Arc::clone(&self.context), self.images.clone());
        let imported = blocking(move || {
            let (new, notices) = import(&context, &images, reader, &options, &())?;
            Ok((litebox::describe(&context.home, new.record())?, new, notices))
        });
        let (imported, ()) = tokio::join!(imported, pump);
        let (info, new, notices) = imported?;
        new.keep();
        self.metrics.box_created();
        self.note(EventAction::Create, &info.id, &info.name);
        Ok(ImportedBox { info, notices })
    }
}

impl BoxExports for Local {
    async fn export_box(&self, id: &str, options: BoxExportOptions) -> Result<TarStream> {
        let guard = self.acquire(id).await?;
        let is_running = self.is_running(&guard.record).await?;
        let admitted = self.in_context(move |context| {
            let mut guard = guard;
            guard.settle(context)?;
            if !is_running && options.snapshot.is_none() {
                litebox::snapshot::refuse_ended(&guard.record)?;
            }
            Ok((guard, options))
        });
        let (guard, options) = admitted.await?;
        let BoxExportOptions { relative, snapshot } = options;
        let (guard, top) = match snapshot {
            Some(name) => (guard, DiskTop::Snapshot(name)),
            None if is_running => {
                let (guard, base) = self.leave_disk(guard).await?;
                (guard, DiskTop::Base(base))
            }
            None => (guard, DiskTop::Overlay),
        };
        let images = self.images.clone();
        let opened = self.in_context(move |context| {
            // Nothing may write to what is read, so the lock is asked and not the record.
            let at_rest = matches!(top, DiskTop::Overlay).then(|| guard.shim_lock()).transpose()?;
            let source = open_disk(context, &images, &guard, &top, relative, &())?;
            let head = head(&guard.record, relative);
            // A source that can no longer change needs no guard.
            Ok((source, head, at_rest.map(|lock| (guard, lock))))
        });
        let (source, head, held) = opened.await?;
        streams::written(move |out| {
            let _held = held;
            box_file::write(head, &source, out)
        })
    }
}

impl Local {
    /// Has the running box go on with a new overlay; returns the base that it leaves behind, whole and unchanging.
    async fn leave_disk(&self, guard: BoxGuard) -> Result<(BoxGuard, PathBuf)> {
        self.refuse_paused(&guard.record, true).await?;
        let asked = self.in_context(move |context| {
            litebox::snapshot::ask_for_space(context, &guard)?;
            Ok(guard)
        });
        let (guard, base, _) = self.switch_disk(asked.await?).await?;
        Ok((guard, base))
    }
}

//! Named volumes of a home of this host.

use std::sync::Arc;

use boxlite_home::durable;
use boxlite_storage::references::References;
use boxlite_storage::volume;
use boxlite_storage::{gc, store::IntentKind};
use boxlite_types::{
    Error, ErrorCause, ErrorKind, Result, VolumeDescription, VolumeInfo, VolumeOptions, VolumePrune,
    is_volume_name,
};

use super::Local;
use crate::context::LocalContext;
use crate::runtime::operations::VolumeOperations;

impl VolumeOperations for Local {
    async fn create_volume(&self, options: VolumeOptions) -> Result<VolumeInfo> {
        self.in_context(move |context| {
            let collector = Arc::new(context.collector());
            let LocalContext { home, store, settings, .. } = &**context;
            let volume = volume::create(home, store, settings, collector, &options)?;
            Ok(describe(context, volume, &References::default()))
        })
        .await
    }

    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.in_context(|context| {
            let references = References::of(&context.home, &context.store)?;
            let mut found = Vec::new();
            for name in volume::names(&context.home)? {
                match present(context, &name) {
                    Ok(volume) => found.push(describe(context, volume, &references)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!("{}", error.chain()),
                }
            }
            Ok(found)
        })
        .await
    }

    async fn volume(&self, name: &str) -> Result<VolumeInfo> {
        let name = name.to_owned();
        self.in_context(move |context| {
            let volume = present(context, &name)?;
            Ok(describe(context, volume, &References::of(&context.home, &context.store)?))
        })
        .await
    }

    async fn remove_volume(&self, name: &str) -> Result<u64> {
        let name = name.to_owned();
        self.in_context(move |context| {
            let freed = volume::remove(&context.home, &context.store, &name)?;
            gc::note_release(&context.home);
            context.fill_reserves(0);
            Ok(freed)
        })
        .await
    }

    async fn prune_volumes(&self) -> Result<VolumePrune> {
        self.in_context(|context| {
            let references = References::of(&context.home, &context.store)?;
            if let Some(doubt) = references.doubts.first() {
                let message = format!("no volume was removed: {doubt}");
                return Err(Error::conflict(message).about(ErrorCause::VolumeInUse));
            }
            let mut pruned = VolumePrune::default();
            let names = volume::names(&context.home)?;
            // An entry that is not a volume is not pruned, and gc reports it.
            for name in
                names.into_iter().filter(|name| is_volume_name(name) && references.to(name).is_empty())
            {
                match volume::remove(&context.home, &context.store, &name) {
                    Ok(freed) => {
                        pruned.reclaimed += freed;
                        pruned.removed.push(name);
                    }
                    // It was removed meanwhile, or a box has come to mount it.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                    Err(error) => pruned.failures.push(error.chain().to_string()),
                }
            }
            if !pruned.removed.is_empty() {
                gc::note_release(&context.home);
                context.fill_reserves(0);
            }
            Ok(pruned)
        })
        .await
    }
}

/// The volume of that name, unless its removal was decided and cut short.
fn present(context: &LocalContext, name: &str) -> Result<VolumeDescription> {
    let volume = volume::read(&context.home, name)?;
    if context.store.has_intent(IntentKind::Volume, &volume.id)? {
        return Err(Error::not_found(format!("there is no volume '{name}'")).about(ErrorCause::Volume));
    }
    Ok(volume)
}

fn describe(context: &LocalContext, volume: VolumeDescription, references: &References) -> VolumeInfo {
    let VolumeDescription { format: _, id, name, size, labels, created_at } = volume;
    let path = context.home.of_volume(&name).disk();
    VolumeInfo {
        id,
        size,
        allocated: durable::allocated_of(&path).unwrap_or(0),
        labels,
        created_at,
        boxes: references.to(&name).iter().map(|user| user.name.clone()).collect(),
        in_use: volume::is_attached(&context.home, &name),
        path,
        name,
    }
}

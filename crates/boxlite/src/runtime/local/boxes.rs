//! Creating, cloning and listing boxes.

use std::sync::Arc;

use boxlite_storage::store::ListedBox;
use boxlite_types::{
    BoxFilter, BoxInfo, BoxOptions, BoxState, CloneOptions, EventAction, ListOptions, ProgressSink, Result,
};

use super::Local;
use crate::litebox;
use crate::runtime::operations::BoxOperations;

impl BoxOperations for Local {
    async fn create(&self, mut options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        litebox::check_alone(&options)?;
        let asked = options.clone();
        let checked = self.in_context(move |context| {
            litebox::check_mounts(context, &asked)?;
            litebox::check_joinable(&context.home, &asked)?;
            litebox::check_memory(context, asked.memory)?;
            litebox::resolve_kernel(asked.kernel.as_deref())
        });
        options.kernel = checked.await?;
        self.expire(None).await?;
        let image = self.image_for(&options, progress).await?;
        let created = self.in_context(move |context| {
            litebox::check(&options, &image.config, context.settings.disk_size.value.0)?;
            let new = litebox::create(context, options, &image)?;
            Ok((litebox::describe(&context.home, new.record())?, new))
        });
        let (info, new) = created.await?;
        new.keep();
        self.metrics.box_created();
        self.note(EventAction::Create, &info.id, &info.name);
        Ok(info)
    }

    async fn place_elsewhere(&self, _: &str, _: Arc<dyn ProgressSink>) -> Result<Option<BoxInfo>> {
        Ok(None)
    }

    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo> {
        let mut guard = self.acquire(id).await?;
        let cloned = self.in_context(move |context| {
            let new = litebox::clone(context, &mut guard, &options)?;
            Ok((litebox::describe(&context.home, new.record())?, new))
        });
        let (info, new) = cloned.await?;
        new.keep();
        self.metrics.box_created();
        self.note(EventAction::Create, &info.id, &info.name);
        Ok(info)
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        self.in_context(move |context| {
            litebox::reap(context)?;
            let mut boxes = Vec::new();
            for listed in context.store.boxes()? {
                let info = litebox::describe_listed(&context.home, &listed)?;
                if let ListedBox::Damaged(damaged) = &listed {
                    tracing::warn!("{}", damaged.why);
                }
                if is_listed(&info, &options) {
                    boxes.push(info);
                }
            }
            Ok(boxes)
        })
        .await
    }
}

/// Whether a listing with these options shows the box.
fn is_listed(info: &BoxInfo, options: &ListOptions) -> bool {
    let by_state = options.filters.iter().any(|filter| matches!(filter, BoxFilter::State(_)));
    let shown = info.state.is_up() || info.state == BoxState::Restarting;
    let visible = options.all || by_state || shown;
    visible && options.filters.iter().all(|filter| matches_filter(info, filter))
}

fn matches_filter(info: &BoxInfo, filter: &BoxFilter) -> bool {
    match filter {
        BoxFilter::Name(part) => info.name.contains(part),
        BoxFilter::Id(prefix) => info.id.starts_with(prefix),
        BoxFilter::State(state) => info.state == *state,
        BoxFilter::Health(status) => info.health.as_ref().is_some_and(|health| health.status == *status),
        BoxFilter::Image(image) => {
            info.image == *image || info.image_digest.trim_start_matches("sha256:").starts_with(image)
        }
        BoxFilter::Label(key, value) => info
            .options
            .labels
            .get(key)
            .is_some_and(|found| value.as_ref().is_none_or(|value| value == found)),
    }
}

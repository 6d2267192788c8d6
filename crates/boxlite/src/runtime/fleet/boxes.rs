//! New boxes, and the list of all.

use std::sync::Arc;

use boxlite_types::{
    BoxInfo, BoxOptions, CloneOptions, Error, ErrorKind, ListOptions, ProgressSink, RemoveOptions, Result,
};
use futures::future::join_all;

use super::choice::by_room;
use super::{Fleet, lock};
use crate::runtime::operations::{BoxLifecycle, BoxOperations};

/// A box that was created here, and where else it could have gone.
#[derive(Debug)]
pub(super) struct PlacedBox {
    node: usize,
    options: BoxOptions,
    others: Vec<usize>,
}

impl Fleet {
    /// The servers that answer, the one with most room first.
    async fn order(&self) -> Result<Vec<usize>> {
        let asked = self.nodes.iter().map(|node| node.ask(node.remote().readiness()));
        let answers: Vec<_> =
            join_all(asked).await.into_iter().map(|answer| answer.and_then(Result::ok)).collect();
        let order = by_room(&answers);
        if order.is_empty() { Err(self.all_down()) } else { Ok(order) }
    }

    /// Creates a box on the first of the servers that has room for it.
    async fn create_on(
        &self,
        order: &[usize],
        options: BoxOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<BoxInfo> {
        let mut refusal = None;
        for (tried, &position) in order.iter().enumerate() {
            let node = &self.nodes[position];
            match node.remote().create(options.clone(), Arc::clone(progress)).await {
                Ok(info) => {
                    self.remember(&info.id, position);
                    let others = order[tried + 1..].to_vec();
                    let placed = PlacedBox { node: position, options, others };
                    lock(&self.placed).insert(info.id.clone(), placed);
                    return Ok(BoxInfo { node: Some(node.url().to_owned()), ..info });
                }
                Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                    node.warn_full(&error);
                    refusal = Some(error);
                }
                // Whether a server that broke off has made the box nobody knows, so that no other is asked.
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| self.all_down()))
    }
}

impl BoxOperations for Fleet {
    async fn create(&self, options: BoxOptions, progress: Arc<dyn ProgressSink>) -> Result<BoxInfo> {
        if let Some(name) = &options.name {
            let taken = self.boxes_called(name).await.found;
            if let Some((position, info)) = taken.iter().find(|(_, info)| info.name == *name) {
                let (url, id) = (self.nodes[*position].url(), &info.id);
                return Err(Error::conflict(format!("the name '{name}' is taken by box {id} on {url}")));
            }
        }
        let order = self.order().await?;
        self.create_on(&order, options, &progress).await
    }

    async fn place_elsewhere(&self, id: &str, progress: Arc<dyn ProgressSink>) -> Result<Option<BoxInfo>> {
        let Some(placed) = lock(&self.placed).remove(id) else { return Ok(None) };
        let made = match self.create_on(&placed.others, placed.options, &progress).await {
            Ok(info) => info,
            Err(error) if placed.others.is_empty() || error.kind() == ErrorKind::ResourceExhausted => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.nodes[placed.node].remote().remove(id, RemoveOptions { force: true }).await?;
        Ok(Some(made))
    }

    async fn clone_box(&self, id: &str, options: CloneOptions) -> Result<BoxInfo> {
        let original = self.locate(id).await?;
        let info = original.remote.clone_box(&original.id, options).await?;
        self.remember(&info.id, original.position);
        Ok(BoxInfo { node: Some(original.remote.server().to_owned()), ..info })
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<BoxInfo>> {
        let asked = self.nodes.iter().map(|node| node.ask(node.remote().list(options.clone())));
        let (mut all, mut answered) = (Vec::new(), false);
        for (position, answer) in join_all(asked).await.into_iter().enumerate() {
            let Some(boxes) = answer.transpose()? else { continue };
            answered = true;
            for info in boxes {
                self.remember(&info.id, position);
                all.push(BoxInfo { node: Some(self.nodes[position].url().to_owned()), ..info });
            }
        }
        if !answered {
            return Err(self.all_down());
        }
        all.sort_by_key(|info| info.created_at);
        Ok(all)
    }
}

//! Limits on all boxes of a key together, checked before a box is made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite::settings::Bytes;
use boxlite::{BoxOptions, Error, ErrorKind, HostInfo, ListOptions, Result, Runtime};

use crate::caller::Caller;
use crate::keys::{KeyLimits, NamedKey};

/// Amounts that boxes take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amounts {
    boxes: u64,
    memory: u64,
    disk: u64,
}

/// The boxes that are being made.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    /// Held while boxes are counted: two requests at once must not both get the last place.
    counting: tokio::sync::Mutex<()>,
    pending: Mutex<HashMap<String, Amounts>>,
}

/// A box that is being made; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct PendingBox {
    allowances: Arc<Allowances>,
    key: String,
    amounts: Amounts,
}

impl Allowances {
    /// Counts a box with `options` as one of the caller's until the result is dropped; by then its record exists.
    ///
    /// A box whose record exists already while it still counts as pending counts twice for that moment.
    ///
    /// # Errors
    /// `Denied`, with the figures, when a limit of the caller's key is reached.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        runtime: &Runtime,
        caller: &Caller,
        options: &BoxOptions,
    ) -> Result<Option<PendingBox>> {
        let Caller::Named(key) = caller else { return Ok(None) };
        if key.limits == KeyLimits::default() {
            return Ok(None);
        }
        let default_disk = match key.limits.disk {
            Some(_) => default_disk(&runtime.info().await?)?,
            None => 0,
        };
        let wanted = Amounts::of(options, default_disk);
        self.reserve_amounts(runtime, caller, key, wanted, default_disk).await.map(Some)
    }

    /// Counts so many bytes of memory more for a box of the caller's, until the result is dropped.
    ///
    /// # Errors
    /// As for [`Allowances::reserve`].
    pub(crate) async fn reserve_memory(
        self: &Arc<Self>,
        runtime: &Runtime,
        caller: &Caller,
        more: u64,
    ) -> Result<Option<PendingBox>> {
        let Caller::Named(key) = caller else { return Ok(None) };
        if key.limits.memory.is_none() || more == 0 {
            return Ok(None);
        }
        let default_disk = match key.limits.disk {
            Some(_) => default_disk(&runtime.info().await?)?,
            None => 0,
        };
        let wanted = Amounts { memory: more, ..Amounts::default() };
        self.reserve_amounts(runtime, caller, key, wanted, default_disk).await.map(Some)
    }

    /// Counts a named volume of that size as one of the caller's, until the result is dropped; by then it exists.
    ///
    /// # Errors
    /// As for [`Allowances::reserve`].
    pub(crate) async fn reserve_volume(
        self: &Arc<Self>,
        runtime: &Runtime,
        caller: &Caller,
        size: Option<u64>,
    ) -> Result<Option<PendingBox>> {
        let Caller::Named(key) = caller else { return Ok(None) };
        if key.limits.disk.is_none() {
            return Ok(None);
        }
        let info = runtime.info().await?;
        let disk = size.map_or_else(|| size_setting(&info, "volume_size"), Ok)?;
        let wanted = Amounts { disk, ..Amounts::default() };
        self.reserve_amounts(runtime, caller, key, wanted, default_disk(&info)?).await.map(Some)
    }

    async fn reserve_amounts(
        self: &Arc<Self>,
        runtime: &Runtime,
        caller: &Caller,
        key: &NamedKey,
        wanted: Amounts,
        default_disk: u64,
    ) -> Result<PendingBox> {
        let _counting = self.counting.lock().await;
        let boxes = runtime.list(ListOptions { all: true, filters: Vec::new() }).await?;
        let own = boxes.iter().filter(|info| caller.sees(info));
        let mut taken =
            own.map(|info| Amounts::of(&info.options, default_disk)).fold(Amounts::default(), Amounts::plus);
        if key.limits.disk.is_some() {
            let volumes = runtime.volumes().await?;
            let own = volumes.iter().filter(|volume| caller.sees_volume(volume));
            taken.disk = own.map(|volume| volume.size).fold(taken.disk, u64::saturating_add);
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = pending.entry(key.name.clone()).or_default();
        check(key, taken.plus(*of_key), wanted)?;
        *of_key = of_key.plus(wanted);
        Ok(PendingBox { allowances: Arc::clone(self), key: key.name.clone(), amounts: wanted })
    }
}

impl Amounts {
    fn of(options: &BoxOptions, default_disk: u64) -> Self {
        Self { boxes: 1, memory: options.memory, disk: options.disk_size.unwrap_or(default_disk) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            boxes: self.boxes.saturating_add(other.boxes),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            boxes: self.boxes.saturating_sub(other.boxes),
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
        }
    }
}

impl Drop for PendingBox {
    fn drop(&mut self) {
        let mut pending = self.allowances.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_key) = pending.get_mut(&self.key) {
            *of_key = of_key.minus(self.amounts);
            if *of_key == Amounts::default() {
                pending.remove(&self.key);
            }
        }
    }
}

/// Writes an amount with its unit.
type AmountText<'a> = &'a dyn Fn(u64) -> String;

fn check(key: &NamedKey, taken: Amounts, wanted: Amounts) -> Result<()> {
    let number = |count: u64| if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") };
    let memory = |bytes: u64| format!("{} of memory", Bytes(bytes));
    let disk = |bytes: u64| format!("{} of virtual disk", Bytes(bytes));
    let limits: [(Option<u64>, u64, u64, AmountText<'_>); 3] = [
        (key.limits.boxes, taken.boxes, wanted.boxes, &number),
        (key.limits.memory, taken.memory, wanted.memory, &memory),
        (key.limits.disk, taken.disk, wanted.disk, &disk),
    ];
    for (most, taken, wanted, show) in limits {
        let Some(most) = most.filter(|most| wanted > 0 && taken.saturating_add(wanted) > *most) else {
            continue;
        };
        let message = format!(
            "key {} may have {}, has {}, and asks for {} more; remove boxes, or have the operator raise the limit",
            key.name,
            show(most),
            show(taken),
            show(wanted)
        );
        return Err(Error::new(ErrorKind::Denied, message));
    }
    Ok(())
}

/// The virtual size of a box's disk that asks for none. None is smaller, since a box's disk stands on that of its image.
pub(crate) fn default_disk(info: &HostInfo) -> Result<u64> {
    size_setting(info, "disk_size")
}

fn size_setting(info: &HostInfo, name: &str) -> Result<u64> {
    let line = info.settings.iter().find(|line| line.name == name);
    let size = line.and_then(|line| line.value.parse::<Bytes>().ok());
    size.map(|Bytes(size)| size).ok_or_else(|| Error::bug(format!("the setting {name} has no value")))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use boxlite::{BoxInfo, RemoteOptions};
    use tokio::net::TcpListener;

    use super::*;
    use crate::caller::OWNER_LABEL;
    use crate::executions::a_box;
    use crate::keys::KeysFile;

    /// A runtime with two boxes of the key `ci` and one of another.
    async fn runtime() -> Runtime {
        let of = |key: &str| {
            let mut info = a_box(key);
            info.options.labels.insert(OWNER_LABEL.to_owned(), key.to_owned());
            info.options.memory = 1 << 30;
            info
        };
        let boxes: Vec<BoxInfo> = vec![of("ci"), of("ci"), of("other")];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/runtime/boxes", get(async move || axum::Json(boxes.clone())));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Runtime::remote(&RemoteOptions { url, api_key: None }).unwrap()
    }

    fn caller(limits: &str) -> Caller {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), crate::key_entry("ci", "secret").unwrap() + limits).unwrap();
        file.as_file().set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        Caller::Named(KeysFile::read(file.path()).unwrap().find(b"secret").unwrap())
    }

    /// Mutation tried: without the pending ones, the fourth box is allowed.
    #[tokio::test]
    async fn boxes_that_exist_and_those_being_made_count() {
        let (runtime, allowances) = (runtime().await, Arc::<Allowances>::default());
        let options = BoxOptions { memory: 1 << 30, ..BoxOptions::default() };
        let ci = caller("max_boxes = 3\n");
        let third = allowances.reserve(&runtime, &ci, &options).await.unwrap();
        let refused = allowances.reserve(&runtime, &ci, &options).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        let said = refused.to_string();
        assert!(said.starts_with("key ci may have 3 boxes, has 3 boxes, and asks for 1 box more"), "{said}");
        drop(third);
        assert!(allowances.reserve(&runtime, &ci, &options).await.is_ok());
        assert!(allowances.reserve(&runtime, &Caller::Operator, &options).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn memory_is_limited_in_all() {
        let (runtime, allowances) = (runtime().await, Arc::<Allowances>::default());
        let ci = caller("max_memory = \"3GiB\"\n");
        let box_with = |memory| BoxOptions { memory, ..BoxOptions::default() };
        assert!(allowances.reserve(&runtime, &ci, &box_with(1 << 30)).await.is_ok());
        let refused = allowances.reserve(&runtime, &ci, &box_with((1 << 30) + 1)).await.unwrap_err();
        assert!(refused.to_string().contains("may have 3 GiB of memory, has 2 GiB of memory"), "{refused}");
    }

    #[test]
    fn a_key_makes_boxes_for_itself_alone() {
        let ci = caller("");
        let owned = ci.owned(BoxOptions::default()).unwrap();
        assert_eq!(owned.labels[OWNER_LABEL], "ci");
        let other = [(OWNER_LABEL.to_owned(), "other".to_owned())].into();
        let refused = ci.owned(BoxOptions { labels: other, ..BoxOptions::default() }).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
    }
}

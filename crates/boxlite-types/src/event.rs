//! The events of a home.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that has happened in a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeEvent {
    /// When.
    pub at: Timestamp,
    /// To what.
    pub subject: EventSubject,
    /// The action.
    pub action: EventAction,
    /// The box's or the volume's id, or the image's digest; empty for the home.
    pub id: String,
    /// The box's or the volume's name, or the image's reference; `None` where it is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Further facts, such as `exit_code`, `reason` or `reclaimed`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// The subject of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSubject {
    /// A box.
    Box,
    /// An image.
    Image,
    /// A named volume.
    Volume,
    /// A network.
    Network,
    /// The home as a whole.
    Home,
}

/// The actions on boxes, images and homes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventAction {
    /// A box was created or cloned; a named volume was made, by its user or with a box; or a network was made.
    Create,
    /// A box was started by its user.
    Start,
    /// A box was started again by its restart policy.
    Restart,
    /// The run of a box has ended.
    Die,
    /// A box was stopped by its user.
    Stop,
    /// A guest stands still, for want of space or for its user.
    Pause,
    /// A guest goes on.
    Unpause,
    /// The health of a box has changed; `health_status` says to what.
    HealthStatus,
    /// A box was given other values.
    Update,
    /// A box was given another name.
    Rename,
    /// A snapshot of a box was taken.
    Snapshot,
    /// A box went back to a snapshot.
    Restore,
    /// A snapshot of a box was removed.
    RemoveSnapshot,
    /// A box, an image, a named volume or a network was removed.
    Remove,
    /// An image was fetched.
    Pull,
    /// Garbage was collected.
    Gc,
}

impl EventAction {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Die => "die",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::HealthStatus => "health_status",
            Self::Update => "update",
            Self::Rename => "rename",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::RemoveSnapshot => "remove_snapshot",
            Self::Remove => "remove",
            Self::Pull => "pull",
            Self::Gc => "gc",
        }
    }
}

impl fmt::Display for EventAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl HomeEvent {
    /// One about the box `id`, now.
    pub fn of_box(action: EventAction, id: &str, name: Option<&str>) -> Self {
        Self::now(EventSubject::Box, action, id, name)
    }

    /// One about the image of that digest, now.
    pub fn of_image(action: EventAction, digest: &str, reference: Option<&str>) -> Self {
        Self::now(EventSubject::Image, action, digest, reference)
    }

    /// One about the named volume `name`, now.
    pub fn of_volume(action: EventAction, id: &str, name: &str) -> Self {
        Self::now(EventSubject::Volume, action, id, Some(name))
    }

    /// One about the network, now.
    pub fn of_network(action: EventAction, id: &str, name: &str) -> Self {
        Self::now(EventSubject::Network, action, id, Some(name))
    }

    /// One about the home, now.
    pub fn of_home(action: EventAction) -> Self {
        Self::now(EventSubject::Home, action, "", None)
    }

    /// The same with something else to say, at most so much that events stay short.
    #[must_use]
    pub fn with(mut self, key: &str, value: &(impl ToString + ?Sized)) -> Self {
        const MAX_CHARS: usize = 256;
        self.details.insert(key.to_owned(), value.to_string().chars().take(MAX_CHARS).collect());
        self
    }

    fn now(subject: EventSubject, action: EventAction, id: &str, name: Option<&str>) -> Self {
        let (id, name) = (id.to_owned(), name.map(str::to_owned));
        Self { at: Timestamp::now(), subject, action, id, name, details: BTreeMap::new() }
    }
}

/// Which events to return.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventOptions {
    /// Only those from then on.
    pub since: Option<Timestamp>,
    /// Only those before then.
    pub until: Option<Timestamp>,
    /// Only those after this place; it comes from the last [`EventPage`].
    pub after: Option<EventPosition>,
}

/// A place in the log of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPosition {
    /// The file, as the host's filesystem numbers it.
    pub file: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// Events, oldest first, and where the log ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<HomeEvent>,
    /// Where to go on.
    pub position: EventPosition,
}

//! The limits of a program that the box's options name.

use boxlite_proto::{Ulimit, UlimitKind};
use rustix::process::{Resource, Rlimit};

/// Limits the calling process, which is still root's, and all that it becomes.
pub(super) fn set(limits: &[Ulimit]) -> Result<(), String> {
    for Ulimit { kind, soft, hard } in limits {
        let resource = resource(*kind);
        rustix::process::setrlimit(resource, Rlimit { current: *soft, maximum: *hard })
            .map_err(|error| format!("setting the limit {resource:?} failed: {error}"))?;
    }
    Ok(())
}

fn resource(kind: UlimitKind) -> Resource {
    match kind {
        UlimitKind::As => Resource::As,
        UlimitKind::Core => Resource::Core,
        UlimitKind::Cpu => Resource::Cpu,
        UlimitKind::Data => Resource::Data,
        UlimitKind::Fsize => Resource::Fsize,
        UlimitKind::Locks => Resource::Locks,
        UlimitKind::Memlock => Resource::Memlock,
        UlimitKind::Msgqueue => Resource::Msgqueue,
        UlimitKind::Nice => Resource::Nice,
        UlimitKind::Nofile => Resource::Nofile,
        UlimitKind::Nproc => Resource::Nproc,
        UlimitKind::Rss => Resource::Rss,
        UlimitKind::Rtprio => Resource::Rtprio,
        UlimitKind::Rttime => Resource::Rttime,
        UlimitKind::Sigpending => Resource::Sigpending,
        UlimitKind::Stack => Resource::Stack,
    }
}

//! Pauses of boxes, in words.

use boxlite_home::settings::Bytes;
use boxlite_types::{Pause, PauseCause, QuotaUse};

/// Says what is short and what ends the pause, with its figures.
pub(crate) fn sentence(pause: &Pause) -> String {
    let figure = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| rounded(bytes).to_string());
    if let Some(QuotaUse { used, limit }) = pause.quota {
        let used = figure(used);
        return format!("disk quota: {used} of {} used; raise it with `boxlite update`", Bytes(limit));
    }
    let what = match pause.cause {
        PauseCause::HostDisk => "host disk".to_owned(),
        PauseCause::Volume => format!("disk of volume {}", pause.path.display()),
        PauseCause::DiskQuota => "disk quota".to_owned(),
        PauseCause::User => return "by its user; `boxlite unpause` lets it go on".to_owned(),
    };
    let free = figure(pause.free);
    format!("{what}: {free} free, resumes at {}", rounded(pause.resumes_at))
}

/// Whole mebibytes, where there are any: more digits would change with every look.
fn rounded(bytes: u64) -> Bytes {
    Bytes(if bytes < 1 << 20 { bytes } else { bytes >> 20 << 20 })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_pause_says_what_is_short_and_when_it_ends() {
        let mut pause = Pause {
            since: Timestamp::UNIX_EPOCH,
            cause: PauseCause::HostDisk,
            path: "/srv/data".into(),
            free: Some((245 << 20) + 77),
            resumes_at: 384 << 20,
            quota: None,
        };
        assert_eq!(sentence(&pause), "host disk: 245 MiB free, resumes at 384 MiB");
        pause.cause = PauseCause::Volume;
        pause.free = Some(5);
        assert_eq!(sentence(&pause), "disk of volume /srv/data: 5 B free, resumes at 384 MiB");
        pause.free = None;
        assert_eq!(sentence(&pause), "disk of volume /srv/data: unknown free, resumes at 384 MiB");
        pause.cause = PauseCause::DiskQuota;
        pause.quota = Some(QuotaUse { used: Some((1 << 30) + 77), limit: 1 << 30 });
        assert_eq!(sentence(&pause), "disk quota: 1 GiB of 1 GiB used; raise it with `boxlite update`");
        pause.quota = Some(QuotaUse { used: Some(1030 << 20), limit: 1 << 30 });
        assert_eq!(sentence(&pause), "disk quota: 1.01 GiB of 1 GiB used; raise it with `boxlite update`");
    }
}

//! Disk quotas of boxes: which values are accepted, and whether one is used up before its guest runs.

use boxlite_home::settings::Bytes;
use boxlite_home::{BoxPaths, durable};
use boxlite_types::{BoxRecord, Error, ErrorCause, Result, Shortage};
use boxlite_vm::shim::DiskQuota;

/// Checks a quota for a disk of that virtual size.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(super) fn check(quota: DiskQuota, virtual_size: u64) -> Result<()> {
    let asked = Bytes(quota.0);
    if quota < DiskQuota::MIN {
        let least = Bytes(DiskQuota::MIN.0);
        return Err(Error::invalid(format!(
            "a disk quota of {asked} is too small: a box needs at least {least}"
        )));
    }
    if quota.0 >= virtual_size {
        return Err(Error::invalid(format!(
            "a disk quota of {asked} is not below the disk's virtual size of {}; a box without a quota may fill its disk",
            Bytes(virtual_size)
        )));
    }
    Ok(())
}

/// Checks that a quota leaves room beside the `used` bytes of the box `name`.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(super) fn check_beside(quota: DiskQuota, used: u64, name: &str) -> Result<()> {
    if quota.has_room(used) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a disk quota of {} is too small for box {name}, which uses {} already; it needs at least {}",
        Bytes(quota.0),
        Bytes(used),
        Bytes(used.saturating_add(DiskQuota::LEAST_ROOM).next_multiple_of(1 << 20))
    )))
}

/// Refuses to boot a guest that would be paused at once.
///
/// # Errors
/// `ResourceExhausted` with the figures.
pub(super) fn admit(record: &BoxRecord, paths: &BoxPaths) -> Result<()> {
    let Some(quota) = record.options.disk_quota.map(DiskQuota) else { return Ok(()) };
    let used = used(paths)?;
    if quota.has_room(used) {
        return Ok(());
    }
    let name = &record.name;
    let message = format!(
        "box {name} has used {} of its disk quota of {}, so its guest could not run; raise it with \
         `boxlite update --disk-quota SIZE {name}`",
        Bytes(used),
        Bytes(quota.0)
    );
    let have = quota.0.saturating_sub(used);
    let shortage = Shortage { need: DiskQuota::LEAST_ROOM, have, inodes: false, reclaimable: None };
    Err(Error::exhausted(message, shortage).about(ErrorCause::DiskQuota).at(paths.overlay()))
}

/// The bytes that count for the quota of the box at `paths`; 0 before its first start.
pub(super) fn used(paths: &BoxPaths) -> Result<u64> {
    let overlay = paths.overlay();
    if overlay.try_exists().is_ok_and(|exists| !exists) {
        return Ok(0);
    }
    durable::allocated_of(&overlay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_quota_is_neither_tiny_nor_as_large_as_the_disk() {
        let refusal = |quota: u64| check(DiskQuota(quota), 128 * MIB).map_err(|error| error.to_string());
        assert_eq!(refusal(16 * MIB), Ok(()));
        assert_eq!(refusal(128 * MIB - 1), Ok(()));
        for (quota, parts) in [
            (0, ["of 0 B is too small", "at least 16 MiB"]),
            (16 * MIB - 1, ["too small", "at least 16 MiB"]),
            (128 * MIB, ["of 128 MiB is not below", "virtual size of 128 MiB"]),
            (1 << 40, ["of 1 TiB is not below", "virtual size of 128 MiB"]),
        ] {
            let refused = refusal(quota).unwrap_err();
            assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        }
    }

    #[test]
    fn a_quota_leaves_room_beside_what_is_used() {
        assert!(check_beside(DiskQuota(32 * MIB), 31 * MIB, "a").is_ok());
        let refused = check_beside(DiskQuota(32 * MIB), 31 * MIB + 1, "a").unwrap_err().to_string();
        assert!(
            refused.contains("box a, which uses 31.00 MiB already; it needs at least 33 MiB"),
            "{refused}"
        );
    }
}

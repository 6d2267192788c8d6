//! The control group of a box, for the programs that serve its devices: they take memory and time for its guest too.
//!
//! The jail makes the group, and removes it once QEMU has gone. A program that ends after QEMU keeps it from that, and so does
//! the shim, so its steward removes it again.

/// Moves all processes of `process_groups` into the control group of the box `id`.
///
/// To be called once QEMU has spoken with them, since they make all of their processes before that. On a host without
/// control groups nothing happens.
pub(super) fn gather(id: &str, process_groups: impl Iterator<Item = u32>) {
    let wanted: Vec<u32> = process_groups.collect();
    if wanted.is_empty() {
        return;
    }
    for process in
        processes().filter(|process| group_of(*process).is_some_and(|group| wanted.contains(&group)))
    {
        if let Err(error) = boxlite_jail::adopt_into_group(id, process) {
            tracing::info!(process, %error, "a device's program is not in the box's control group");
        }
    }
}

/// Moves `process`, with all of its threads, into the control group of the box `id`. Blocks until the kernel lets it, some
/// ten milliseconds long.
pub(super) fn join(id: &str, process: u32) {
    if let Err(error) = boxlite_jail::adopt_into_group(id, process) {
        tracing::info!(process, %error, "the shim is not in the box's control group");
    }
}

/// Removes the control group of the box `id` if nobody is in it any more.
pub(super) fn remove(id: &str) {
    boxlite_jail::remove_group(id);
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process group of `process`, by `/proc/PID/stat`: what follows the name in brackets is state, parent, group.
fn group_of(process: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_group_is_found_by_its_number() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get() as u32;
        assert_eq!(group_of(std::process::id()), Some(own));
        assert!(processes().any(|process| process == std::process::id()));
        assert_eq!(group_of(u32::MAX), None);
    }
}

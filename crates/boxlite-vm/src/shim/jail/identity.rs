//! The user ids that root gives to running boxes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use boxlite_jail::JailIdentity;
use boxlite_types::{Doing, Error, ErrorKind, Result};

use crate::shim::launch::JailPolicy;

/// Where running boxes of this host note their user ids: the byte with an id's number is locked while the id is in use.
const IDS_IN_USE: &str = "/run/boxlite-ids";

/// Whose processes a box's are: as root those of a user of this box alone, for as long as this lives.
#[derive(Debug)]
pub(in crate::shim) struct BoxIdentity {
    pub(in crate::shim) identity: JailIdentity,
    pub(in crate::shim) in_use: Option<File>,
}

impl BoxIdentity {
    /// The identity of an ordinary user's box.
    pub(in crate::shim) fn own() -> Self {
        Self { identity: JailIdentity::Own, in_use: None }
    }

    /// Takes an id that no other running box of this host has; an ordinary user keeps its own.
    ///
    /// # Errors
    /// `ResourceExhausted` when every id is in use; `Io` when that cannot be told.
    pub(in crate::shim) fn take(policy: &JailPolicy, box_id: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::own());
        }
        #[allow(clippy::disallowed_methods, reason = "it is empty and gone with the next boot of the host")]
        let in_use = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(IDS_IN_USE)
            .doing("opening the list of user ids in use", IDS_IN_USE)?;
        // Different boxes begin at different ids, so that one is hardly ever given to two boxes in a row.
        let begin = box_id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        for index in 0..policy.ids {
            let index = (begin % policy.ids + index) % policy.ids;
            let identity = JailIdentity::of_box(true, policy.first_id, policy.ids, index);
            if let JailIdentity::Reserved(id) = identity
                && lock_byte(&in_use, id).doing("taking a user id in", IDS_IN_USE)?
            {
                return Ok(Self { identity, in_use: Some(in_use) });
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "all {} user ids for boxes (settings jail_first_id and jail_ids) are in use; stop a box or raise jail_ids",
                policy.ids
            ),
        ))
    }
}

/// Locks the byte `at` for this open file; false while another has it.
fn lock_byte(file: &File, at: u32) -> std::io::Result<bool> {
    let region = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at.into(),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for the whole call, and the kernel only reads the structure.
    #[allow(unsafe_code)]
    let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(&region)) };
    if locked == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use boxlite_jail::View;

    use super::*;

    #[test]
    fn no_two_running_boxes_have_one_user_id() {
        if boxlite_testkit::oracle::skip_unless_root("giving a box a user id of its own") {
            return;
        }
        // Ids of this test process alone.
        let first_id = 3_000_000_000 + std::process::id() * 16;
        let policy = JailPolicy { view: View::default(), first_id, ids: 2 };
        let first = BoxIdentity::take(&policy, "a").unwrap();
        let second = BoxIdentity::take(&policy, "a").unwrap();
        assert_ne!(first.identity, second.identity);
        let error = BoxIdentity::take(&policy, "a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        let freed = first.identity;
        drop(first);
        assert_eq!(BoxIdentity::take(&policy, "a").unwrap().identity, freed);
    }
}

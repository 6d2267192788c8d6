//! Writing back early what a sync must wait for later.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Has the kernel start to write these bytes of `file` to its disk, and does not wait for that: a hint.
///
/// The maker of a large file calls this while it goes on, so that [`Staged::publish`](super::Staged::publish), which
/// syncs all the same, finds most of it written.
pub fn start_writing(file: &File, offset: u64, length: u64) {
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the call takes no pointers.
    #[allow(unsafe_code)]
    let started = unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset as libc::off64_t,
            length as libc::off64_t,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
    if started != 0 {
        tracing::trace!(error = %std::io::Error::last_os_error(), "writing early was refused");
    }
}

//! Any bytes as a qcow2 header: never a panic, and never a name beyond the bounds of the format.
#![no_main]

use boxlite_storage::disk::qcow2::Qcow2Header;
use boxlite_storage::disk::qcow2::header::{BOUND, LONGEST_NAME};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Qcow2Header::parse(bytes) {
        assert!((512..=2 << 20).contains(&header.cluster));
        if let Some(backing) = header.backing {
            assert!(!backing.name.is_empty() && backing.name.len() <= LONGEST_NAME);
            assert!(!backing.name.contains(&0));
            assert_eq!(Qcow2Header::parse(&bytes[..bytes.len().min(BOUND)]), Ok(header));
        }
    }
});

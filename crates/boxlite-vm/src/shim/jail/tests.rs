use boxlite_jail::View;

use super::*;
use crate::net::Network;

fn policy(ids: u32) -> JailPolicy {
    // Ids of this test process alone.
    JailPolicy { view: View::default(), first_id: 3_000_000_000 + std::process::id() * 16, ids }
}

fn given() -> Given {
    Given { descriptors: vec![10], openings: Vec::new(), file_size: 1 << 30 }
}

/// The user-mode stack is in a process of its own, so a network changes nothing for QEMU.
#[test]
fn no_box_is_in_the_network_of_the_host() {
    for network in [None, Some(Network::default())] {
        let jail =
            jail_of(&LaunchSpec { network, ..LaunchSpec::sample() }, &policy(1), JailIdentity::Own, given());
        assert_eq!((jail.network, jail.low_ports, jail.limits.open_files), (NetworkScope::None, false, 256));
        assert!(jail.view.data.is_empty());
    }
}

#[test]
fn a_file_may_be_as_large_as_disk_or_memory() {
    let mut header = tempfile::tempfile().unwrap();
    assert_eq!(file_size(&header, 1 << 30), (1 << 30) + FILE_OVERHEAD);
    std::io::Write::write_all(&mut header, &[[0; 24].as_slice(), &(64_u64 << 30).to_be_bytes()].concat())
        .unwrap();
    assert_eq!(file_size(&header, 1 << 30), (65 << 30) + FILE_OVERHEAD);
}

#[test]
fn no_two_running_boxes_have_one_user_id() {
    if boxlite_testkit::oracle::skip_unless_root("giving a box a user id of its own") {
        return;
    }
    let policy = policy(2);
    let first = BoxIdentity::take(&policy, "a").unwrap();
    let second = BoxIdentity::take(&policy, "a").unwrap();
    assert_ne!(first.identity, second.identity);
    let error = BoxIdentity::take(&policy, "a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    let freed = first.identity;
    drop(first);
    assert_eq!(BoxIdentity::take(&policy, "a").unwrap().identity, freed);
}

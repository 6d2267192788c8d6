use boxlite_jail::View;

use super::*;
use crate::net::Network;

fn policy(ids: u32) -> JailPolicy {
    // Ids of this test process alone.
    JailPolicy { view: View::default(), first_id: 3_000_000_000 + std::process::id() * 16, ids }
}

fn given() -> Given {
    Given { descriptors: vec![10], openings: Vec::new(), file_size: 1 << 30, low_ports: true }
}

/// Mutation tried: with the scope of every box that of a networked one, this fails.
#[test]
fn only_a_box_with_a_network_is_in_the_hosts() {
    let lonely = LaunchSpec::sample();
    let jail = jail_of(&lonely, &policy(1), JailIdentity::Own, given());
    assert_eq!((jail.network, jail.low_ports, jail.limits.open_files), (NetworkScope::None, false, 256));
    assert!(jail.view.data.is_empty());
    let plain = jail.cgroup.unwrap().memory_max;

    let networked = LaunchSpec { network: Some(Network::default()), ..lonely };
    let jail = jail_of(&networked, &policy(1), JailIdentity::Reserved(7), given());
    assert_eq!((jail.network, jail.low_ports, jail.limits.open_files), (NetworkScope::Host, true, 512));
    assert_eq!(jail.cgroup.unwrap().memory_max, plain + CONNECTIONS_OVERHEAD);
}

#[test]
fn a_file_may_be_as_large_as_disk_or_memory() {
    let mut header = tempfile::tempfile().unwrap();
    assert_eq!(file_size(&header, 1 << 30), (1 << 30) + FILE_OVERHEAD);
    std::io::Write::write_all(&mut header, &[[0; 24].as_slice(), &(64_u64 << 30).to_be_bytes()].concat())
        .unwrap();
    assert_eq!(file_size(&header, 1 << 30), (65 << 30) + FILE_OVERHEAD);
}

/// Mutation tried: without the lock, all three boxes get the first id.
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

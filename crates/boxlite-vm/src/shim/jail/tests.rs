use boxlite_types::parse_ports;

use super::*;

fn jail_of(ports: &[&str], given: Given) -> (JailSpec, JailSpec) {
    let policy = JailPolicy { view: View::default(), first_id: 0x7000_0000, ids: 0 };
    let ports = ports.iter().flat_map(|text| parse_ports(text).unwrap()).collect();
    let network = Network { ports, max_connections: 100, ..Network::default() };
    let spec = LaunchSpec { network: Some(network.clone()), ..LaunchSpec::sample() };
    let jail = BoxJail { policy, identity: BoxIdentity::own(), cgroup: Some(cgroup_of(&spec)) };
    let command = StackCommand::new(&spec.qemu, &[], None, &network.ports, 11);
    (jail.qemu(&spec, given), jail.network(&network, command))
}

fn given() -> Given {
    Given { descriptors: vec![10], openings: Vec::new(), fillings: Vec::new(), file_size: 1 << 30 }
}

/// QEMU has files and no network, its network has sockets and no files, and both are held to one group's limits.
#[test]
fn only_the_network_of_a_box_is_in_that_of_the_host() {
    let (qemu, stack) = jail_of(&["8080:80"], given());
    assert_eq!((qemu.network, qemu.low_ports, qemu.limits.open_files), (NetworkScope::None, false, 256));
    assert!(qemu.view.data.is_empty());
    assert_eq!((stack.network, stack.profile), (NetworkScope::Host, Profile::Stack));
    assert_eq!((stack.limits.open_files, stack.limits.file_size), (64 + 1 + 100, 0));
    assert!(stack.view.data.iter().all(|bound| bound.target == Path::new(RESOLVERS)), "{:?}", stack.view);
    assert_eq!(stack.descriptors, [11]);
    let without = cgroup_of(&LaunchSpec::sample()).memory_max;
    assert_eq!(qemu.cgroup, stack.cgroup);
    assert_eq!(stack.cgroup.unwrap().memory_max, without + (82 << 20));
}

/// The kernel refuses an ordinary user's low port, as it would anywhere.
#[test]
fn only_a_port_that_takes_a_privilege_asks_for_one() {
    let low = |ports: &str| {
        StackCommand::new(Path::new("/q"), &[], None, &parse_ports(ports).unwrap(), 3).low_ports
    };
    assert!(low("80:80") && !low("8080:80"));
    assert!(!jail_of(&["80:80"], given()).1.low_ports);
}

#[test]
fn a_file_may_be_as_large_as_disk_or_memory() {
    let mut header = tempfile::tempfile().unwrap();
    assert_eq!(file_size(&header, 1 << 30), (1 << 30) + FILE_OVERHEAD);
    std::io::Write::write_all(&mut header, &[[0; 24].as_slice(), &(64_u64 << 30).to_be_bytes()].concat())
        .unwrap();
    assert_eq!(file_size(&header, 1 << 30), (65 << 30) + FILE_OVERHEAD);
}

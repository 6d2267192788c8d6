//! The network as QEMU arguments.

use std::os::fd::RawFd;

use boxlite_types::PortForward;

use super::{GATEWAY, GUEST, MacAddr, RESOLVER, SUBNET};

/// The two descriptors, as QEMU numbers them, that carry the box's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Behind the guest's network card.
    pub(super) card: RawFd,
    /// In front of the user-mode stack.
    pub(super) stack: RawFd,
}

/// Arguments for a virtio-mmio network card whose frames pass through `descriptors`.
///
/// `ports` have their host ports chosen. Card and stack share no hub: the only way between them is the shim.
pub(super) fn arguments(mac: MacAddr, ports: &[PortForward], descriptors: Descriptors) -> Vec<String> {
    let Descriptors { card, stack } = descriptors;
    let mut user = format!(
        "user,id=slirp,ipv4=on,ipv6=off,net={SUBNET},host={GATEWAY},dns={RESOLVER},dhcpstart={GUEST},restrict=off"
    );
    let forwards = ports.iter().map(|PortForward { bind, host, guest, protocol }| {
        format!(",hostfwd={protocol}:{bind}:{host}-{GUEST}:{guest}")
    });
    user.extend(forwards);
    [
        "-netdev".to_owned(),
        format!("stream,id=card,addr.type=fd,addr.str={card}"),
        "-device".to_owned(),
        format!("virtio-net-device,netdev=card,mac={mac}"),
        "-netdev".to_owned(),
        user,
        "-netdev".to_owned(),
        format!("stream,id=stack,addr.type=fd,addr.str={stack}"),
        "-netdev".to_owned(),
        "hubport,id=hub-slirp,hubid=0,netdev=slirp".to_owned(),
        "-netdev".to_owned(),
        "hubport,id=hub-stack,hubid=0,netdev=stack".to_owned(),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxlite_types::parse_ports;

    #[test]
    fn the_card_is_not_on_the_hub_of_the_stack() {
        let arguments = arguments(MacAddr::of_box("b"), &[], Descriptors { card: 11, stack: 12 });
        let hubports: Vec<_> = arguments.iter().filter(|a| a.starts_with("hubport")).collect();
        assert!(hubports.iter().all(|a| !a.contains("netdev=card")), "{hubports:?}");
        assert_eq!(hubports.len(), 2);
        let user = arguments.iter().find(|a| a.starts_with("user,")).unwrap();
        assert!(user.contains("ipv6=off") && !user.contains("hostfwd"), "{user}");
    }

    #[test]
    fn published_ports_become_forwards() {
        let mut ports = parse_ports("8080:80").unwrap();
        ports.extend(parse_ports("0.0.0.0:53:5353/udp").unwrap());
        let arguments = arguments(MacAddr::of_box("b"), &ports, Descriptors { card: 11, stack: 12 });
        let user = arguments.iter().find(|a| a.starts_with("user,")).unwrap();
        assert!(
            user.ends_with(",hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=udp:0.0.0.0:53-10.0.2.15:5353")
        );
    }
}
